//! What clients cost that do nothing.

use std::time::Duration;

use anyhow::Result;

use super::Bench;
use super::visit::PATIENCE;
use crate::case::Idle;
use crate::hold::Held;
use crate::peers::{Peer, Running};

/// Opening takes a few hundred microseconds each, and so does asking whether it is still of use.
pub(super) fn time(idle: Idle) -> Duration {
    Duration::from_millis(1500) + Duration::from_micros(500) * idle.connections as u32
}

impl Bench<'_> {
    /// Holds connections to a fresh process: one that has served may have room left over from then.
    pub(super) fn hold(&mut self, peer: Peer, idle: Idle) -> Result<Held> {
        let fresh = Running::start_as(peer, &format!("{}-idle", peer.name()), 0, &self.setting)?;
        let mut arguments = vec!["hold".to_owned(), "--url".to_owned(), fresh.url.clone()];
        arguments.extend(["--connections".to_owned(), idle.connections.to_string()]);
        arguments.extend(["--tool".to_owned(), peer.tool().to_owned()]);
        arguments.extend(fresh.pids().iter().flat_map(|pid| ["--watch-pid".to_owned(), pid.to_string()]));
        let more: &[&str] = if idle.streams { &["--streams"] } else { &[] };
        self.run_own(&arguments, more, time(idle) * 10 + PATIENCE)
    }
}
