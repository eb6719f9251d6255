//! Wake-ups in ticks, for streams that are silent for long and for pauses: a number and a waker each, looked
//! at with the deadlines, where a timer each would cost memory and a place in a wheel.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::clock::Tick;

/// All alarms of one worker.
#[derive(Default)]
pub(super) struct Alarms(RefCell<Slab<Entry>>);

struct Entry {
    due: Tick,
    rung: bool,
    waker: Option<Waker>,
}

/// One alarm; dropped, it is forgotten.
pub(super) struct Alarm {
    all: Rc<Alarms>,
    key: usize,
}

impl Alarms {
    /// An alarm that is not set.
    pub(super) fn add(self: &Rc<Self>) -> Alarm {
        let key = self.0.borrow_mut().insert(Entry { due: Tick::NEVER, rung: false, waker: None });
        Alarm { all: Rc::clone(self), key }
    }

    /// Rings what is due.
    pub(super) fn ring(&self, now: Tick) {
        self.ring_if(|entry| entry.due <= now);
    }

    /// Rings every alarm: something has changed that all who wait want to know.
    pub(super) fn ring_all(&self) {
        self.ring_if(|_| true);
    }

    fn ring_if(&self, is_due: impl Fn(&Entry) -> bool) {
        for (_, entry) in self.0.borrow_mut().iter_mut() {
            if is_due(entry) {
                entry.due = Tick::NEVER;
                entry.rung = true;
                entry.waker.take().into_iter().for_each(Waker::wake);
            }
        }
    }
}

impl Alarm {
    /// Sets it anew.
    pub(super) fn set(&self, due: Tick) {
        self.all.0.borrow_mut()[self.key].due = due;
    }

    /// Ready once for each time it rings.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let entry = &mut self.all.0.borrow_mut()[self.key];
        if std::mem::take(&mut entry.rung) {
            return Poll::Ready(());
        }
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.all.0.borrow_mut().remove(self.key);
    }
}
