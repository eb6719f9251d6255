//! What clients cost that do nothing.

use std::time::Duration;

use anyhow::Result;

use super::Bench;
use crate::case::Idle;
use crate::hold::Held;
use crate::peers::{Peer, Running};

/// Files of one process that are no connections.
const FILES_SPARE: u64 = 100;

/// A stream, and any connection through a relay, has a socket towards the client and one towards the backend.
pub(super) fn sockets_needed(idle: Idle) -> u64 {
    2 * idle.connections as u64 + FILES_SPARE
}

pub(super) fn cannot_hold(needed: u64, sockets_max: u64) -> String {
    format!(
        "needs {needed} open files in one process, and {sockets_max} is the hard limit here, which only root may raise \
         (`ulimit -Hn`, LimitNOFILE, docker run --ulimit nofile); idle-N and streams-N take any N up to {}",
        sockets_max.saturating_sub(FILES_SPARE) / 2
    )
}

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
        self.run_own(&arguments, if idle.streams { &["--streams"] } else { &[] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_held_is_told_with_what_cannot() {
        let idle = Idle { connections: 20_000, streams: true };
        assert_eq!(sockets_needed(idle), 40_100);
        assert!(cannot_hold(40_100, 20_000).ends_with("up to 9950"));
    }
}
