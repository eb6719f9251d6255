//! A request as bytes ready to send, and the handshake that comes before it.

use super::{FIRST_HERD, FIRST_ID, LEGACY_VERSION, MODERN_VERSION, Workload};

/// Where requests go: the parts of an `http://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: std::net::SocketAddr,
    pub path: String,
}

impl std::str::FromStr for Target {
    type Err = String;

    /// Numeric addresses only: a load generator that resolves names measures the resolver too.
    fn from_str(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or("only http:// URLs")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let address = authority.parse().map_err(|_| format!("`{authority}` is not ADDRESS:PORT"))?;
        Ok(Target { address, path: if path.is_empty() { "/".to_owned() } else { path.to_owned() } })
    }
}

const DIGITS: usize = 10;

/// A request as bytes, whose id (and herd) can be written over in place.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    id_at: Vec<usize>,
    herd_at: Vec<usize>,
}

impl Template {
    /// The workload's request; `session` is what `initialize` gave to this connection (legacy era).
    pub fn new(workload: Workload, target: &Target, tool: &str, session: Option<&str>) -> Self {
        let (method, params) = (workload.method(), workload.params(tool));
        let body = format!(r#"{{"jsonrpc":"2.0","id":{FIRST_ID},"method":"{method}","params":{{{params}}}}}"#);
        let mut headers = Vec::new();
        if workload.is_modern() {
            headers.push(("MCP-Protocol-Version", MODERN_VERSION));
            headers.push(("Mcp-Method", method));
            if method == "tools/call" {
                headers.push(("Mcp-Name", tool));
            }
        } else {
            headers.push(("MCP-Protocol-Version", LEGACY_VERSION));
            headers.extend(session.map(|session| ("Mcp-Session-Id", session)));
        }
        let bytes = post(target, &headers, &body);
        let places = |of: u64| memchr::memmem::find_iter(&bytes, of.to_string().as_bytes()).collect();
        Template { id_at: places(FIRST_ID), herd_at: places(FIRST_HERD), bytes }
    }

    /// Makes it the request with this id, of this herd.
    pub fn fill(&mut self, id: u64, herd: u64) {
        for (places, number) in [(&self.id_at, id), (&self.herd_at, herd)] {
            for &at in places {
                self.bytes[at..at + DIGITS].copy_from_slice(&id_digits(number));
            }
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The decimal digits of an id from `FIRST_ID` on, or of a herd from `FIRST_HERD` on.
pub fn id_digits(id: u64) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    let mut rest = id;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

/// The legacy era's opening request.
pub fn initialize(target: &Target) -> Vec<u8> {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":{FIRST_ID},"method":"initialize","params":{{"protocolVersion":"{LEGACY_VERSION}","capabilities":{{}},"clientInfo":{{"name":"loadtest","version":"1"}}}}}}"#
    );
    post(target, &[], &body)
}

/// The notification that ends the legacy handshake.
pub fn initialized(target: &Target, session: Option<&str>) -> Vec<u8> {
    let mut headers = vec![("MCP-Protocol-Version", LEGACY_VERSION)];
    headers.extend(session.map(|session| ("Mcp-Session-Id", session)));
    post(target, &headers, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
}

/// Asks for the stream on which a legacy server sends what nobody asked for.
pub fn open_stream(target: &Target, session: Option<&str>) -> Vec<u8> {
    let Target { address, path } = target;
    let session = session.map_or(String::new(), |session| format!("Mcp-Session-Id: {session}\r\n"));
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: ringway-loadtest\r\nAccept: text/event-stream\r\n\
         MCP-Protocol-Version: {LEGACY_VERSION}\r\n{session}\r\n"
    )
    .into_bytes()
}

fn post(target: &Target, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let Target { address, path } = target;
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: ringway-loadtest\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n"
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    request.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn target() -> Target {
        "http://127.0.0.1:9001/mcp".parse().unwrap()
    }

    #[test]
    fn a_url_gives_address_and_path() {
        assert_eq!(target().path, "/mcp");
        assert_eq!(target().address.port(), 9001);
        assert_eq!("http://127.0.0.1:1".parse::<Target>().unwrap().path, "/");
        assert!("https://127.0.0.1:1/".parse::<Target>().is_err());
        assert!("http://localhost:1/".parse::<Target>().is_err());
    }

    fn request(workload: Workload, id: u64, herd: u64) -> (String, serde_json::Value) {
        let mut template = Template::new(workload, &target(), super::super::TOOL, Some("s"));
        template.fill(id, herd);
        let request = String::from_utf8(template.bytes().to_vec()).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn every_request_is_json_with_the_id_it_was_given() {
        for workload in Workload::value_variants().iter().flat_map(|workload| workload.parts()) {
            let (head, body) = request(*workload, 1_234_567_890, FIRST_HERD);
            assert_eq!(body["id"], 1_234_567_890);
            assert_eq!(head.contains("Mcp-Session-Id: s"), !workload.is_modern());
        }
    }

    #[test]
    fn only_what_should_be_shared_is_the_same_twice() {
        let params = |workload, id, herd| request(workload, id, herd).1["params"].clone();
        for workload in [Workload::List, Workload::ListModern] {
            assert_ne!(params(workload, FIRST_ID, FIRST_HERD), params(workload, FIRST_ID + 1, FIRST_HERD));
        }
        assert_eq!(params(Workload::Herd, FIRST_ID, FIRST_HERD), params(Workload::Herd, FIRST_ID + 1, FIRST_HERD));
        assert_ne!(params(Workload::Herd, FIRST_ID, FIRST_HERD), params(Workload::Herd, FIRST_ID, FIRST_HERD + 1));
        assert_eq!(params(Workload::ListCached, FIRST_ID, 0), params(Workload::ListCached, FIRST_ID + 1, 1));
    }
}
