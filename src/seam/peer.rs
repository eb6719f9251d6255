//! Messages between workers: which of them fetches an answer that several wait for.
//!
//! Everything a worker asks of another fits into these. A message that may be lost costs a second
//! upstream exchange; one that may not is kept and sent again by its sender, so that the mailbox can
//! be bounded. Who sends what, and why nothing waits for ever: `worker::share`.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::WorkerHandle;
use crate::coalesce::{FlightId, Question, Scope, Shared};
use crate::error::ProxyError;

/// How an exchange that several wait for came out.
#[derive(Clone, Debug)]
pub enum Landing {
    /// An answer that may go to those of the leader's scope, or to everybody if it says so.
    Answer(Arc<Shared>),
    /// No answer: all who wait are told the same.
    Failed(ProxyError),
    /// An answer for the leader alone: too long, a stream, or none of others' business.
    Leader,
    /// Ask again: the answer was for another scope, or nobody will bring one.
    Again,
}

/// What one worker tells another. `ticket` is the flight of the asking worker.
#[derive(Debug)]
pub enum PeerMessage {
    /// To the question's owner: somebody here asks.
    Ask {
        /// Who sends this.
        from: usize,
        /// Its flight.
        ticket: FlightId,
        /// What is asked.
        question: Question,
        /// On whose behalf.
        scope: Scope,
        /// The count of the question's slot when it was asked.
        epoch: u64,
    },
    /// To the owner: nobody here waits any more, whether they led or followed.
    Leave {
        /// Who sends this.
        from: usize,
        /// Its flight.
        ticket: FlightId,
    },
    /// To the owner, by the leader.
    Done {
        /// Who sends this.
        from: usize,
        /// Its flight.
        ticket: FlightId,
        /// How it came out.
        landing: Landing,
    },
    /// From the owner: fetch the answer.
    Lead {
        /// Who sends this.
        owner: usize,
        /// The asker's flight.
        ticket: FlightId,
    },
    /// From the owner: it came out.
    Landed {
        /// The asker's flight.
        ticket: FlightId,
        /// How.
        landing: Landing,
    },
    /// From the owner to the leader: whether others wait beside it.
    Audience {
        /// The leader's flight.
        ticket: FlightId,
        /// Whether somebody does.
        waits: bool,
    },
}

/// A message that did not arrive.
#[derive(Debug)]
pub enum Undelivered {
    /// The mailbox is full: try again later.
    Full(PeerMessage),
    /// There is nobody to read it.
    Ended,
}

/// How to reach each worker, by its number. A worker that is started again gets a new place.
#[derive(Debug, Default)]
pub struct Peers(ArcSwap<Vec<WorkerHandle>>);

impl Peers {
    /// Puts the handles of all workers in place of the old ones.
    pub fn publish(&self, handles: Vec<WorkerHandle>) {
        self.0.store(Arc::new(handles));
    }

    /// How many workers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.load().len()
    }

    /// Whether none was published yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands a message over.
    ///
    /// # Errors
    /// The worker's mailbox is full, or it has ended.
    pub fn send(&self, worker: usize, message: PeerMessage) -> Result<(), Undelivered> {
        self.0.load().get(worker).ok_or(Undelivered::Ended)?.send_peer(message)
    }
}
