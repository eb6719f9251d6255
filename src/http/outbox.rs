//! What is sent when a turn of the event loop ends.
//!
//! In one turn the loop runs every task for which something has come, and most of them end with one small
//! send. Those of one turn are sent together, when its tasks have run: a send walks through as much of the
//! kernel as a request does of this program, and the processor's caches do not hold both. CPU per request
//! with 32 connections, against sending at once: 0.96 for a small call, 0.99 for a list, 0.76 for one from
//! the cache; with 256, 0.98 for a call. With one connection there is nothing to gain, and 1.04 to lose: so
//! messages wait only while turns have several.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::io::Line;
use super::{Awaiting, Socket};
use crate::limits;

/// A worker's messages that are complete and small, on their way out.
#[derive(Default)]
pub struct Outbox {
    due: RefCell<Vec<Rc<Line>>>,
    blanks: RefCell<Vec<Vec<u8>>>,
    sender: Cell<Option<Waker>>,
    /// Turns in a row that had one message.
    lonely_turns: Cell<u32>,
    /// Messages since then that did not wait.
    at_once: Cell<u32>,
}

/// After so many turns with one message the next do not wait.
const LONELY_TURNS_MAX: u32 = 16;

/// Of those, one in so many waits nevertheless, to see whether it has company again.
const PROBE: u32 = 64;

impl Outbox {
    /// Memory to write a message into.
    #[must_use]
    pub fn blank(&self) -> Vec<u8> {
        self.blanks.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes memory back.
    pub fn give(&self, mut blank: Vec<u8>) {
        let mut blanks = self.blanks.borrow_mut();
        if (1..=2 * limits::POSTED_BYTES_MAX).contains(&blank.capacity()) && blanks.len() < limits::POSTED_MAX {
            blank.clear();
            blanks.push(blank);
        }
    }

    /// Whether a message of so many bytes had better be posted than sent at once. Asked once for each.
    #[must_use]
    pub fn wants(&self, socket: &Socket, bytes: usize) -> bool {
        let due = self.due.borrow().len();
        // Behind what waits already the order is kept by sending both; and who reads slowly is to be waited for.
        if bytes > limits::POSTED_BYTES_MAX || due >= limits::POSTED_MAX || !socket.has_sent_all() {
            return false;
        }
        if due > 0 || self.lonely_turns.get() < LONELY_TURNS_MAX {
            return true;
        }
        self.at_once.set(self.at_once.get().wrapping_add(1));
        self.at_once.get().is_multiple_of(PROBE)
    }

    /// Has `message` sent by the end of this turn, and before whatever is written to `socket` from now on. A
    /// failure ends the socket, and shows where it is read.
    pub fn post(&self, socket: &Socket, message: Vec<u8>) {
        self.due.borrow_mut().push(socket.post(message));
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }

    /// Waits until there is something to send. Who waits is woken behind the tasks that can run by then.
    pub async fn posted(&self) {
        poll_fn(|cx| {
            if !self.due.borrow().is_empty() {
                return Poll::Ready(());
            }
            self.sender.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Sends what is left for the last time, and lets go of who would send more.
    pub fn end(&self) {
        drop(self.send());
        self.sender.take();
    }

    /// Sends everything, and gives the sockets that have not taken theirs whole.
    #[must_use]
    pub fn send(&self) -> Vec<Awaiting> {
        let mut rests = Vec::new();
        let mut due = self.due.take();
        self.lonely_turns.set(if due.len() > 1 { 0 } else { self.lonely_turns.get().saturating_add(1) });
        for line in due.drain(..) {
            match line.flush() {
                Ok(blank) => self.give(blank),
                // Unless its owner waits for room, and sends it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    rests.extend(line.begin_waiting());
                }
                Err(_) => {}
            }
        }
        // Its memory again; nothing is posted meanwhile.
        self.due.replace(due);
        rests
    }
}
