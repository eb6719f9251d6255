//! What is asked for: the kinds of request, and what a right answer to each must have.

mod template;

use clap::ValueEnum;

pub use self::template::{Target, Template, id_digits, initialize, initialized, open_stream};

/// A kind of request, the same one over and over but for its id (lists: and its cursor).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Workload {
    /// tools/call with a 64-byte answer, legacy era with a session
    Call,
    /// tools/call with a 64-byte answer, stateless as of 2026-07-28
    CallModern,
    /// tools/call with a 64-byte answer, each on a new connection
    Connect,
    /// tools/list of 12 KiB, legacy era; each asks for another page, so that no two are alike
    List,
    /// tools/list of 12 KiB, stateless as of 2026-07-28; each asks for another page, so that no two are alike
    ListModern,
    /// tools/list of 12 KiB, 2026-07-28, which its backend allows to be kept
    ListCached,
    /// tools/list of 12 KiB, 2026-07-28, asked for by all at once, which takes the backend 50 ms; then the next one
    Herd,
    /// tools/call with an answer of 64 KiB
    #[value(name = "call-64k")]
    Call64k,
    /// tools/call with an answer of 1 MiB
    #[value(name = "call-1m")]
    Call1m,
    /// tools/call with a request of 1 MiB
    #[value(name = "upload-1m")]
    Upload1m,
    /// tools/call answered by 20 events and a result, no pause between them
    Sse20,
    /// tools/call answered by 20 events and a result, 5 ms between them
    #[value(name = "sse20-paced")]
    Sse20Paced,
    /// Of ten requests eight are call, one is list, one is sse20
    Mixed,
}

pub const SSE_EVENTS: u32 = 20;
/// With what is around it a body of just under 1 MiB, a limit that proxies like.
const UPLOAD_BYTES: usize = 1023 * 1024;
const HERD_DELAY_MS: u32 = 50;
const LEGACY_VERSION: &str = "2025-06-18";
const MODERN_VERSION: &str = "2026-07-28";
/// The tool that is called, unless a proxy offers it under another name.
pub const TOOL: &str = "lookup";

/// Ids and herds have ten digits from the first to the last, so that a request can be reused by writing over them.
pub const FIRST_ID: u64 = 1_000_000_000;
pub const FIRST_HERD: u64 = 7_000_000_000;

impl Workload {
    pub fn name(self) -> String {
        self.to_possible_value().expect("no variant is skipped").get_name().to_owned()
    }

    /// What one request after the other is.
    pub fn parts(self) -> &'static [Workload] {
        use Workload::*;
        match self {
            Call => &[Call],
            CallModern => &[CallModern],
            Connect => &[Connect],
            List => &[List],
            ListModern => &[ListModern],
            ListCached => &[ListCached],
            Herd => &[Herd],
            Call64k => &[Call64k],
            Call1m => &[Call1m],
            Upload1m => &[Upload1m],
            Sse20 => &[Sse20],
            Sse20Paced => &[Sse20Paced],
            Mixed => &[Call, Call, Call, List, Call, Call, Call, Call, Sse20, Call],
        }
    }

    pub fn is_modern(self) -> bool {
        matches!(self, Workload::CallModern | Workload::ListModern | Workload::ListCached | Workload::Herd)
    }

    pub fn is_list(self) -> bool {
        matches!(self, Workload::List | Workload::ListModern | Workload::ListCached | Workload::Herd)
    }

    pub fn is_stream(self) -> bool {
        matches!(self, Workload::Sse20 | Workload::Sse20Paced)
    }

    /// Whether a proxy may answer without asking the backend each time.
    pub fn may_be_shared(self) -> bool {
        matches!(self, Workload::ListCached | Workload::Herd)
    }

    /// The least bytes a right response can have: an answer cut short is noticed even if it is still JSON.
    pub fn body_bytes_min(self) -> usize {
        match self {
            Workload::Call64k => 64 * 1024,
            Workload::Call1m => 1024 * 1024,
            _ if self.is_list() => 11 * 1024,
            _ => 64,
        }
    }

    /// The member a right result has.
    pub fn result_member(self) -> &'static str {
        if self.is_list() { "tools" } else { "content" }
    }

    /// Room for the whole answer: a head, the events before the response, and the response.
    pub fn answer_bytes_max(self) -> usize {
        let longest = self.parts().iter().map(|part| part.body_bytes_min()).max();
        2 * longest.expect("every workload has parts") + 32 * 1024
    }

    fn method(self) -> &'static str {
        if self.is_list() { "tools/list" } else { "tools/call" }
    }

    fn params(self, tool: &str) -> String {
        let own = match self {
            // The mock knows one page under any name. A list without a cursor is the one it lets others keep.
            Workload::List | Workload::ListModern => format!(r#""cursor":"page-{FIRST_ID}""#),
            Workload::ListCached => String::new(),
            Workload::Herd => format!(r#""cursor":"after-{HERD_DELAY_MS}-ms-{FIRST_HERD}""#),
            _ => format!(r#""name":"{tool}","arguments":{{{}}}"#, self.arguments()),
        };
        let meta = match self {
            Workload::Sse20 | Workload::Sse20Paced => format!(r#""_meta":{{"progressToken":{FIRST_ID}}}"#),
            _ if self.is_modern() => format!(
                r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN_VERSION}","io.modelcontextprotocol/clientInfo":{{"name":"loadtest","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}"#
            ),
            _ => String::new(),
        };
        let separator = if own.is_empty() || meta.is_empty() { "" } else { "," };
        format!("{own}{separator}{meta}")
    }

    fn arguments(self) -> String {
        match self {
            Workload::Call64k => r#""size":65536"#.to_owned(),
            Workload::Call1m => r#""size":1048576"#.to_owned(),
            // The mock compares the length that arrived with the one that is said.
            Workload::Upload1m => {
                format!(r#""blob_bytes":{UPLOAD_BYTES},"blob":"{}""#, "u".repeat(UPLOAD_BYTES))
            }
            Workload::Sse20 => format!(r#""events":{SSE_EVENTS}"#),
            Workload::Sse20Paced => format!(r#""events":{SSE_EVENTS},"pause_ms":5"#),
            _ => r#""query":"ringway""#.to_owned(),
        }
    }
}
