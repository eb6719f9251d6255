//! Deadlines of sockets: one store to set, one sweep a tick to enforce.
//!
//! A deadline that passes ends the socket's direction with `shutdown(2)`; whoever waits on it wakes
//! to an end of stream and asks [`Deadline::expired`] why. No timer is armed per wait. The sweep
//! looks at every open socket: 20,000 of them ten times a second cost under one percent of a core.

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;

use slab::Slab;

use super::io::shutdown_fd;
use crate::clock::Tick;

/// All deadlines of one worker, and its coarse time.
#[derive(Debug, Default)]
pub struct Deadlines {
    now: Cell<Tick>,
    entries: RefCell<Slab<Rc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    fd: RawFd,
    due: Cell<Tick>,
    how: Cell<Shutdown>,
    idle: Cell<bool>,
    expired: Cell<bool>,
}

/// The deadline of one socket; dropped before the socket closes, so that its number is never stale.
#[derive(Debug)]
pub struct Deadline {
    entry: Rc<Entry>,
    key: usize,
    all: Rc<Deadlines>,
}

impl Deadlines {
    /// The current tick.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.now.get()
    }

    /// Goes on to the tick `now` and ends every socket that is due.
    pub fn advance(&self, now: Tick) {
        self.now.set(now);
        for (_, entry) in self.entries.borrow().iter() {
            if entry.due.get() <= now {
                entry.due.set(Tick::NEVER);
                entry.expired.set(true);
                shutdown_fd(entry.fd, entry.how.get());
            }
        }
    }

    /// Ends reading on every socket that waits for a request: a drain. Bytes received already are
    /// still read, so that a request that came just before is served.
    pub fn end_idle(&self) {
        for (_, entry) in self.entries.borrow().iter() {
            if entry.idle.get() {
                shutdown_fd(entry.fd, Shutdown::Read);
            }
        }
    }

    /// Ends every socket: the worker ends.
    pub fn end_all(&self) {
        self.entries.borrow().iter().for_each(|(_, entry)| shutdown_fd(entry.fd, Shutdown::Both));
    }

    pub(super) fn register(self: &Rc<Self>, fd: RawFd) -> Deadline {
        let entry = Rc::new(Entry {
            fd,
            due: Cell::new(Tick::NEVER),
            how: Cell::new(Shutdown::Both),
            idle: Cell::new(false),
            expired: Cell::new(false),
        });
        let key = self.entries.borrow_mut().insert(Rc::clone(&entry));
        Deadline { entry, key, all: Rc::clone(self) }
    }
}

impl Deadline {
    /// Ends both directions at `due`.
    pub fn set(&self, due: Tick) {
        self.arm(due, Shutdown::Both, false);
    }

    /// Ends only reading at `due`, so that an answer can still be written.
    pub fn set_read(&self, due: Tick) {
        self.arm(due, Shutdown::Read, false);
    }

    /// Ends both directions at `due`, or earlier by [`Deadlines::end_idle`].
    pub fn set_idle(&self, due: Tick) {
        self.arm(due, Shutdown::Both, true);
    }

    /// No deadline.
    pub fn clear(&self) {
        self.arm(Tick::NEVER, Shutdown::Both, false);
    }

    fn arm(&self, due: Tick, how: Shutdown, idle: bool) {
        self.entry.how.set(how);
        self.entry.idle.set(idle);
        self.entry.due.set(due);
    }

    /// Whether one has passed.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.entry.expired.get()
    }

    /// The current tick.
    #[must_use]
    pub fn now(&self) -> Tick {
        self.all.now()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.all.entries.borrow_mut().remove(self.key);
    }
}
