//! Messages between workers: which of them fetches an answer that several wait for.
//!
//! Everything a worker asks of another fits into these. A message that may be lost costs a second
//! upstream exchange; one that may not is kept and sent again by its sender, so that the mailbox can
//! be bounded. Who sends what, and why nothing waits for ever: `worker::share`.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// A connection that was accepted where too much is under way already.
    Connection {
        /// The connection.
        stream: TcpStream,
        /// Who is at its other end.
        peer: SocketAddr,
        /// It came through a listener that only this machine can reach.
        on_loopback: bool,
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
    Ended(PeerMessage),
}

/// How many streams a worker carries, as it last said: written by that worker alone, once a tick, on a
/// cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Load(AtomicUsize);

/// Of a worker that takes no connections: it has not begun, or drains.
const CLOSED: usize = usize::MAX;

impl Default for Load {
    fn default() -> Self {
        Self(AtomicUsize::new(CLOSED))
    }
}

/// The worker that is to have a connection which `me` accepted, if that is not `me`: the one with the
/// fewest streams, once `me` has half as many again as the mean. Few clients with long streams can meet one
/// worker by chance, as the kernel goes by addresses and ports only.
fn lighter(loads: impl Iterator<Item = usize> + Clone, me: usize) -> Option<usize> {
    let open = loads.enumerate().filter(|(_, load)| *load != CLOSED);
    let (count, sum) = open.clone().fold((0, 0), |(count, sum), (_, load)| (count + 1, sum + load));
    let mine = open.clone().find(|(index, _)| *index == me)?.1;
    let (least, _) = open.min_by_key(|(_, load)| *load)?;
    (mine > 3 * sum / (2 * count) + SKEW_MIN).then_some(least)
}

/// A difference in streams that is worth moving a connection for.
const SKEW_MIN: usize = 16;

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

    /// Tells how many streams a worker carries; nothing if it takes no connections.
    pub fn tell_load(&self, worker: usize, streams: Option<usize>) {
        if let Some(handle) = self.0.load().get(worker) {
            handle.load.0.store(streams.unwrap_or(CLOSED), Ordering::Relaxed);
        }
    }

    /// The worker that is to have a connection which `me` accepted, if not `me` itself.
    #[must_use]
    pub fn lighter_than(&self, me: usize) -> Option<usize> {
        lighter(self.0.load().iter().map(|handle| handle.load.0.load(Ordering::Relaxed)), me)
    }

    /// Hands a message over.
    ///
    /// # Errors
    /// The worker's mailbox is full, or it has ended.
    pub fn send(&self, worker: usize, message: PeerMessage) -> Result<(), Undelivered> {
        match self.0.load().get(worker) {
            Some(handle) => handle.send_peer(message),
            None => Err(Undelivered::Ended(message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_many_more_streams_than_the_mean_hands_over() {
        let lighter = |loads: &[usize], me| lighter(loads.iter().copied(), me);
        assert_eq!(lighter(&[0, 0], 0), None);
        assert_eq!(lighter(&[64, 0], 0), None);
        assert_eq!(lighter(&[80, 0], 0), Some(1));
        assert_eq!(lighter(&[100, 90, 95], 0), None);
        assert_eq!(lighter(&[300, 10, 5, 20], 0), Some(2));
        assert_eq!(lighter(&[300, 10, 5, 20], 1), None);
        assert_eq!(lighter(&[300, CLOSED, 40, 20], 0), Some(3));
        assert_eq!(lighter(&[300], 0), None);
        assert_eq!(lighter(&[CLOSED, 1], 0), None);
        assert_eq!(lighter(&[], 0), None);
    }
}
