//! Questions to the admin listener.

use std::net::SocketAddr;

use serde_json::Value;

use super::client::{Client, Response};
use super::eventually;

/// Where a proxy's operator asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admin(pub(crate) SocketAddr);

impl Admin {
    pub(crate) fn ask(self, method: &str, path: &str) -> Response {
        self.ask_with(method, path, "")
    }

    /// `fields` are whole header lines.
    pub(crate) fn ask_with(self, method: &str, path: &str, fields: &str) -> Response {
        let mut client = Client::connect(self.0);
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Connection: close\r\n\r\n"));
        if method == "HEAD" { client.response_to_head() } else { client.response() }
    }

    /// A page of JSON.
    pub(crate) fn page(self, path: &str) -> Value {
        let response = self.ask("GET", path);
        assert_eq!(response.status, 200, "{path}");
        serde_json::from_slice(&response.body).expect("JSON")
    }

    /// The sum of all samples of a metric whose line begins with this text.
    pub(crate) fn metric(self, sample: &str) -> f64 {
        let text = self.ask("GET", "/metrics").text();
        let matching = text
            .lines()
            .filter(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with([' ', '{', ',', '}'])));
        matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// `ringway_refused_total` of one reason.
    pub(crate) fn refused(self, reason: &str) -> f64 {
        self.metric(&format!("ringway_refused_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until no exchange is in flight and no client is connected.
    pub(crate) fn comes_to_rest(self) {
        for gauge in ["ringway_exchanges", "ringway_streams", "ringway_connections{side=\"client\"}"] {
            eventually(&format!("{gauge} is zero"), || self.metric(gauge) == 0.0);
        }
    }
}
