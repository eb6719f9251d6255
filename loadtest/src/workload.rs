//! What is asked for: the requests of each workload, as bytes ready to send, and what a right answer must have.

use clap::ValueEnum;

/// A kind of request, the same one over and over but for its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Workload {
    /// tools/call with a 64-byte answer, legacy era with a session
    Call,
    /// The same, stateless as of 2026-07-28
    CallModern,
    /// tools/list of 12 KiB, legacy era
    List,
    /// tools/list of 12 KiB, 2026-07-28
    ListModern,
    /// tools/call with an answer of 64 KiB
    #[value(name = "call-64k")]
    Call64k,
    /// tools/call with an answer of 1 MiB
    #[value(name = "call-1m")]
    Call1m,
    /// tools/call answered by 20 events and a result, no pause between them
    Sse20,
    /// The same with 5 ms between events
    #[value(name = "sse20-paced")]
    Sse20Paced,
}

pub const SSE_EVENTS: u32 = 20;
const LEGACY_VERSION: &str = "2025-06-18";
const MODERN_VERSION: &str = "2026-07-28";
const TOOL: &str = "lookup";

/// Ids have ten digits from the first to the last, so that a request can be reused by writing over the digits.
pub const FIRST_ID: u64 = 1_000_000_000;
const ID_DIGITS: usize = 10;

impl Workload {
    pub fn name(self) -> String {
        self.to_possible_value().expect("no variant is skipped").get_name().to_owned()
    }

    pub fn is_modern(self) -> bool {
        matches!(self, Workload::CallModern | Workload::ListModern)
    }

    pub fn is_stream(self) -> bool {
        matches!(self, Workload::Sse20 | Workload::Sse20Paced)
    }

    /// The least bytes a right answer's body can have: an answer cut short is noticed even if it is still JSON.
    pub fn body_bytes_min(self) -> usize {
        match self {
            Workload::Call | Workload::CallModern => 64,
            Workload::List | Workload::ListModern => 11 * 1024,
            Workload::Call64k => 64 * 1024,
            Workload::Call1m => 1024 * 1024,
            Workload::Sse20 | Workload::Sse20Paced => 20 * 100,
        }
    }

    /// Room for the whole answer, head included.
    pub fn answer_bytes_max(self) -> usize {
        2 * self.body_bytes_min() + 32 * 1024
    }

    fn method(self) -> &'static str {
        match self {
            Workload::List | Workload::ListModern => "tools/list",
            _ => "tools/call",
        }
    }

    fn params(self) -> String {
        let arguments = match self {
            Workload::Call64k => r#""size":65536"#.to_owned(),
            Workload::Call1m => r#""size":1048576"#.to_owned(),
            Workload::Sse20 => format!(r#""events":{SSE_EVENTS}"#),
            Workload::Sse20Paced => format!(r#""events":{SSE_EVENTS},"pause_ms":5"#),
            _ => r#""query":"ringway""#.to_owned(),
        };
        let call = format!(r#""name":"{TOOL}","arguments":{{{arguments}}}"#);
        let meta = format!(
            r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN_VERSION}","io.modelcontextprotocol/clientInfo":{{"name":"loadtest","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}"#
        );
        match self {
            Workload::List => String::new(),
            Workload::ListModern => meta,
            Workload::CallModern => format!("{call},{meta}"),
            Workload::Sse20 | Workload::Sse20Paced => {
                format!(r#"{call},"_meta":{{"progressToken":{FIRST_ID}}}"#)
            }
            _ => call,
        }
    }
}

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

/// A request as bytes, whose id can be written over in place.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    id_at: Vec<usize>,
}

impl Template {
    /// The workload's request; `session` is what `initialize` gave to this connection (legacy era).
    pub fn new(workload: Workload, target: &Target, session: Option<&str>) -> Self {
        let method = workload.method();
        let body = match workload.params() {
            params if params.is_empty() => {
                format!(r#"{{"jsonrpc":"2.0","id":{FIRST_ID},"method":"{method}"}}"#)
            }
            params => format!(r#"{{"jsonrpc":"2.0","id":{FIRST_ID},"method":"{method}","params":{{{params}}}}}"#),
        };
        let mut headers = Vec::new();
        if workload.is_modern() {
            headers.push(("MCP-Protocol-Version", MODERN_VERSION));
            headers.push(("Mcp-Method", method));
            if method == "tools/call" {
                headers.push(("Mcp-Name", TOOL));
            }
        } else {
            headers.push(("MCP-Protocol-Version", LEGACY_VERSION));
            headers.extend(session.map(|session| ("Mcp-Session-Id", session)));
        }
        let bytes = post(target, &headers, &body);
        let id = FIRST_ID.to_string();
        let id_at = memchr::memmem::find_iter(&bytes, id.as_bytes()).collect();
        Template { bytes, id_at }
    }

    /// The request with this id.
    pub fn with_id(&mut self, id: u64) -> &[u8] {
        let digits = id_digits(id);
        for &at in &self.id_at {
            self.bytes[at..at + ID_DIGITS].copy_from_slice(&digits);
        }
        &self.bytes
    }
}

/// The decimal digits of an id from `FIRST_ID` on.
pub fn id_digits(id: u64) -> [u8; ID_DIGITS] {
    let mut digits = [0; ID_DIGITS];
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
pub fn initialized(target: &Target, session: &str) -> Vec<u8> {
    let headers = [("MCP-Protocol-Version", LEGACY_VERSION), ("Mcp-Session-Id", session)];
    post(target, &headers, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
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

    #[test]
    fn every_request_is_json_with_the_id_it_was_given() {
        for workload in Workload::value_variants() {
            let mut template = Template::new(*workload, &target(), Some("s"));
            let request = String::from_utf8(template.with_id(1_234_567_890).to_vec()).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["id"], 1_234_567_890);
            assert_eq!(head.contains("Mcp-Session-Id: s"), !workload.is_modern());
        }
    }
}
