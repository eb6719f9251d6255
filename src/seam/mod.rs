//! All that the control thread and the workers share.
//!
//! Control to workers: a [`SnapshotCell`] (what to do) and a bounded [`Mailbox`] (that something
//! changed). Workers to control: [`WorkerStats`], a plain copy sent on request, so that counting on
//! the request path is an ordinary add and nothing there is shared; and [`AccessLines`], in batches.

mod access;
mod command;
mod labels;
mod peer;
mod snapshot;
mod stats;

pub use crate::mcp::{RandomSecret, SessionKeys};
pub use access::{AccessLines, access_lines};
pub use command::{Command, Mailbox, WorkerHandle, mailbox};
pub use labels::{Cached, Coalesced, Era, ErasSeen, Invalidation, SessionEvent, Share};
use peer::Load;
pub use peer::{Landing, PeerMessage, Peers, Undelivered};
pub use snapshot::{BuildError, Label, Names, Snapshot, SnapshotCell};
pub use stats::{Counted, Counts, EndpointStats, Latency, Series, StatusClass, WorkerStats};
