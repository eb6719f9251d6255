//! The configuration each peer is started with: templates in `loadtest/peers/`, whose `@NAMES@` are filled in here.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Peer;

/// What a template may ask for.
pub(super) struct Holes<'a> {
    pub(super) peer: Peer,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) backend: SocketAddr,
    /// The peer's own folder, absolute.
    pub(super) dir: &'a Path,
    /// Sockets one process may have.
    pub(super) sockets_max: u64,
    /// Backends beside the one that all peers have; Ringway only.
    pub(super) fleet: usize,
}

/// Sockets that serve neither a client nor a backend.
const SOCKETS_SPARE: u64 = 100;
const ENDPOINTS_PER_BACKEND: usize = 3;

const NGINX_BUFFERS_BIG: &str = "proxy_buffer_size 32k; proxy_buffers 4 128k; proxy_max_temp_file_size 0;";

/// The name and the text of a peer's template; none if it needs no configuration.
pub(super) fn template(peer: Peer) -> Option<(&'static str, &'static str)> {
    Some(match peer {
        Peer::Direct | Peer::RelayEpoll | Peer::RelayUring => return None,
        Peer::Nginx | Peer::NginxBig => ("nginx.conf", include_str!("../../peers/nginx.conf")),
        Peer::Haproxy => ("haproxy.cfg", include_str!("../../peers/haproxy.cfg")),
        Peer::McpProxy => ("mcp-proxy.toml", include_str!("../../peers/mcp-proxy.toml")),
        Peer::McpGateway => ("mcp-gateway.yaml", include_str!("../../peers/mcp-gateway.yaml")),
        Peer::Agentgateway => ("agentgateway.yaml", include_str!("../../peers/agentgateway.yaml")),
        Peer::Envoy => ("envoy.yaml", include_str!("../../peers/envoy.yaml")),
        Peer::Monolake => ("monolake.toml", include_str!("../../peers/monolake.toml")),
        Peer::Ringway
        | Peer::RingwayEpoll
        | Peer::RingwayStream
        | Peer::RingwayEnvelope
        | Peer::Ringway2
        | Peer::RingwayPgo => ("ringway.toml", include_str!("../../peers/ringway.toml")),
    })
}

impl Holes<'_> {
    /// Writes the peer's configuration; the path of the file.
    pub(super) fn write(&self) -> Result<Option<PathBuf>> {
        let Some((name, template)) = template(self.peer) else {
            return Ok(None);
        };
        let path = self.dir.join(name);
        fs::write(&path, self.fill(template)?).with_context(|| format!("write {}", path.display()))?;
        Ok(Some(path))
    }

    fn fill(&self, template: &str) -> Result<String> {
        let dir = self.dir.to_str().with_context(|| format!("{} is not text", self.dir.display()))?;
        let driver = if self.peer == Peer::RingwayEpoll { "epoll" } else { "auto" };
        let buffers = if self.peer == Peer::NginxBig { NGINX_BUFFERS_BIG } else { "# buffers are the default ones" };
        let config = template
            .replace("@LISTEN@", &self.listen.to_string())
            .replace("@LISTEN_PORT@", &self.listen.port().to_string())
            .replace("@ADMIN@", &self.admin.to_string())
            .replace("@ADMIN_PORT@", &self.admin.port().to_string())
            .replace("@BACKEND@", &self.backend.to_string())
            .replace("@BACKEND_PORT@", &self.backend.port().to_string())
            .replace("@DIR@", dir)
            .replace("@WORKERS@", &self.peer.workers().to_string())
            .replace("@DRIVER@", driver)
            .replace("@BUFFERS@", buffers)
            .replace("@SOCKETS_MAX@", &self.sockets_max.to_string())
            // A client may need a socket towards the backend, too.
            .replace("@CLIENTS_MAX@", &(self.sockets_max.saturating_sub(SOCKETS_SPARE) / 2).to_string())
            .replace("@ROUTES@", &self.routes());
        Ok(config + &self.fleet())
    }

    /// Ringway's variants read differently much of a body.
    fn routes(&self) -> String {
        let body = match self.peer {
            Peer::RingwayStream => "stream",
            Peer::RingwayEnvelope => "envelope",
            _ => return String::new(),
        };
        // The path is the one there is without any route.
        format!("[[routes]]\npath = \"/mcp/{{backend}}\"\nbody = \"{body}\"\n")
    }

    /// Different endpoints as far as the proxy can know; the mock takes any path below `/mcp`.
    fn fleet(&self) -> String {
        let mut backends = String::new();
        for index in 0..self.fleet {
            let name = fleet_backend(index);
            let endpoint = |number: usize| format!("\"http://{}/mcp/{name}/{number}\"", self.backend);
            let endpoints: Vec<String> = (0..ENDPOINTS_PER_BACKEND).map(endpoint).collect();
            let _ = write!(backends, "[backends.{name}]\nendpoints = [{}]\n", endpoints.join(", "));
        }
        backends
    }
}

/// The name of a backend of a fleet.
pub(super) fn fleet_backend(index: usize) -> String {
    format!("b{index:06}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn filled(peer: Peer, fleet: usize) -> Option<String> {
        let (address, dir) = ("127.0.0.1:9".parse().unwrap(), Path::new("/tmp/x"));
        let (listen, admin, backend) = (address, address, address);
        let holes = Holes { peer, listen, admin, backend, dir, sockets_max: 20_000, fleet };
        template(peer).map(|(_, text)| holes.fill(text).unwrap())
    }

    #[test]
    fn configurations_have_no_hole_left() {
        let mut configured = 0;
        for config in Peer::value_variants().iter().filter_map(|peer| filled(*peer, 2)) {
            let settings: Vec<&str> = config.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
            assert!(settings.len() > 5);
            // Envoy's types begin with an @, too.
            let has_hole = |line: &&str| line.split('@').skip(1).any(|rest| rest.starts_with(char::is_uppercase));
            assert!(!settings.iter().any(has_hole), "{config}");
            configured += 1;
        }
        assert!(configured > 10);
    }

    #[test]
    fn variants_differ_in_one_thing() {
        assert!(filled(Peer::RingwayStream, 0).unwrap().contains("body = \"stream\""));
        assert!(!filled(Peer::Ringway, 0).unwrap().contains("body ="));
        assert!(filled(Peer::NginxBig, 0).unwrap().contains("proxy_buffers 4 128k"));
        assert!(!filled(Peer::Nginx, 0).unwrap().contains("proxy_buffers"));
        assert!(filled(Peer::Ringway2, 0).unwrap().contains("workers = 2"));
        assert!(filled(Peer::Haproxy, 0).unwrap().contains("maxconn 9950"));
    }

    #[test]
    fn a_fleet_has_three_endpoints_each() {
        let config = filled(Peer::Ringway, 10).unwrap();
        assert_eq!(config.matches("[backends.b").count(), 10);
        assert_eq!(config.matches("http://127.0.0.1:9/mcp/b000009/").count(), 3);
    }
}
