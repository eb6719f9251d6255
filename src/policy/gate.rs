//! `Origin` and `Host`: whether a web page somewhere may have made this request behind its user's back
//! (2025-11-25 and later, "Security warning"; P-106).
//!
//! A browser names the page's origin, whatever the page wants. After DNS rebinding it takes the
//! attacker's name for this machine, and says so in `Host`.

use std::net::IpAddr;

use ahash::AHashSet;
use memchr::memchr;

use crate::config::model::Config;

/// Which origins and hosts are let in.
#[derive(Debug, Default)]
pub struct Gate {
    /// In lower case.
    origins: AHashSet<Box<[u8]>>,
    any_origin: bool,
    hosts: AHashSet<Box<[u8]>>,
    any_host: bool,
    /// Not only where the listener is for this machine alone.
    hosts_everywhere: bool,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// `Origin` is neither allowed nor our own.
    Origin,
    /// `Host` is none of ours.
    Host,
}

/// Stands for all.
const ANY: &str = "*";

impl Gate {
    /// Of a configuration. The hosts of its routes and of `public_url` are our own.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let server = &config.server;
        let lower = |text: &[u8]| text.to_ascii_lowercase().into_boxed_slice();
        let public_authority = server.public_url.as_deref().and_then(|url| url.split('/').nth(2));
        let route_hosts = config.routes.iter().filter_map(|route| route.host.as_deref());
        let public_origin =
            server.public_url.as_deref().map(|url| url.split('/').take(3).collect::<Vec<_>>().join("/"));
        Self {
            origins: server
                .allowed_origins
                .iter()
                .chain(&public_origin)
                .map(|origin| lower(origin.as_bytes()))
                .collect(),
            any_origin: server.allowed_origins.iter().any(|origin| origin == ANY),
            hosts: server
                .allowed_hosts
                .iter()
                .map(String::as_str)
                .chain(route_hosts)
                .map(str::as_bytes)
                .chain(public_authority.map(|authority| host_name(authority.as_bytes())))
                .map(lower)
                .collect(),
            // Behind a proxy of the operator's own no browser is in front of us.
            any_host: server.allowed_hosts.iter().any(|host| host == ANY) || server.trusted_hops > 0,
            hosts_everywhere: !server.allowed_hosts.is_empty(),
        }
    }

    /// Whether a request with these headers is let in. `loopback`: it came through a listener that only
    /// this machine can reach.
    ///
    /// # Errors
    /// Why it is not.
    pub fn admit(&self, origin: Option<&[u8]>, host: &[u8], loopback: bool) -> Result<(), Denial> {
        if let Some(origin) = origin
            && !self.is_allowed_origin(origin, host)
        {
            return Err(Denial::Origin);
        }
        if (loopback || self.hosts_everywhere) && !self.is_own_host(host) { Err(Denial::Host) } else { Ok(()) }
    }

    fn is_allowed_origin(&self, origin: &[u8], host: &[u8]) -> bool {
        let is_our_page = || {
            let authority = [b"http://".as_slice(), b"https://"].iter().find_map(|scheme| {
                let (start, rest) = origin.split_at_checked(scheme.len())?;
                start.eq_ignore_ascii_case(scheme).then_some(rest)
            });
            // A host that is a name was checked to be ours where that matters.
            authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
        };
        self.any_origin || self.origins.contains(origin.to_ascii_lowercase().as_slice()) || is_our_page()
    }

    fn is_own_host(&self, host: &[u8]) -> bool {
        if self.any_host || host.is_empty() {
            return true;
        }
        let name = host_name(host);
        // The usual ones first: reading an address takes as long as routing.
        name == b"127.0.0.1"
            || name.eq_ignore_ascii_case(b"localhost")
            || is_address(name)
            || self.hosts.contains(name.to_ascii_lowercase().as_slice())
    }
}

/// An address is not a name that could be made to mean something else.
fn is_address(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| name.parse::<IpAddr>().is_ok())
}

/// Without port and brackets.
fn host_name(authority: &[u8]) -> &[u8] {
    let (name, end) = match authority.strip_prefix(b"[") {
        Some(literal) => (literal, b']'),
        None => (authority, b':'),
    };
    &name[..memchr(end, name).unwrap_or(name.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn gate(server: &str) -> Gate {
        let text = format!("[server]\n{server}\n[backends.b]\nendpoints = [\"http://127.0.0.1:9/mcp\"]");
        Gate::new(&config::load_str("test.toml", &text).expect("a configuration"))
    }

    fn origin(gate: &Gate, origin: &str) -> bool {
        gate.admit(Some(origin.as_bytes()), b"127.0.0.1:8080", true).is_ok()
    }

    #[test]
    fn p_106_only_listed_origins_and_our_own_are_let_in() {
        let closed = gate("");
        assert!(origin(&closed, "http://127.0.0.1:8080") && origin(&closed, "HTTP://127.0.0.1:8080"));
        for foreign in ["https://evil.example", "null", "", "http://127.0.0.1:80801", "http://127.0.0.1", "file://"] {
            assert!(!origin(&closed, foreign), "{foreign}");
        }
        let open =
            gate("allowed_origins = [\"https://App.example\", \"null\"]\npublic_url = \"https://mcp.example/x\"");
        for ours in ["https://app.example", "https://APP.example", "null", "https://mcp.example"] {
            assert!(origin(&open, ours), "{ours}");
        }
        for foreign in ["https://app.example:8443", "http://app.example", "https://app.example.evil.example"] {
            assert!(!origin(&open, foreign), "{foreign}");
        }
        assert!(origin(&gate("allowed_origins = [\"*\"]"), "https://any.example"));
        assert_eq!(closed.admit(None, b"127.0.0.1", true), Ok(()));
    }

    #[test]
    fn on_loopback_only_our_own_names_are_answered_to() {
        let host = |gate: &Gate, host: &str, loopback: bool| gate.admit(None, host.as_bytes(), loopback);
        let plain = gate("public_url = \"https://mcp.example:8443\"");
        for own in
            ["localhost", "LocalHost:8080", "127.0.0.1:1", "[::1]:80", "10.0.0.1", "mcp.example", "MCP.example:1", ""]
        {
            assert_eq!(host(&plain, own, true), Ok(()), "{own}");
        }
        for foreign in ["rebound.example", "localhost.example", "127.0.0.1.example", "mcp.example.evil.example"] {
            assert_eq!(host(&plain, foreign, true), Err(Denial::Host), "{foreign}");
            assert_eq!(host(&plain, foreign, false), Ok(()), "{foreign}");
        }
        let listed = gate("allowed_hosts = [\"edge.example\"]");
        assert_eq!(host(&listed, "edge.example", false), Ok(()));
        assert_eq!(host(&listed, "other.example", false), Err(Denial::Host));
        assert_eq!(host(&gate("trusted_hops = 1"), "any.example", true), Ok(()));
    }
}
