//! The access log: one JSON line for each request, gathered and handed over in batches.
//!
//! What a line may hold is a closed list. Of what the client sent there are its method, path and
//! the name it asked for, each cut; no other header, no query, no argument can get in (P-112).

use std::cell::RefCell;
use std::time::Duration;

use time::UtcDateTime;

use crate::error::Refusal;
use crate::http::{RequestHead, TraceParent};
use crate::limits;
use crate::seam::{AccessLines, Era, Share};

/// A worker's part of the access log.
pub(super) struct AccessLog {
    worker: usize,
    lines: AccessLines,
    /// Lines that are not handed over yet.
    batch: RefCell<Vec<u8>>,
}

impl AccessLog {
    pub(super) fn new(worker: usize, lines: AccessLines) -> Self {
        Self { worker, lines, batch: RefCell::default() }
    }

    /// Adds a line.
    pub(super) fn write(&self, entry: &Entry<'_>) {
        let mut batch = self.batch.borrow_mut();
        write_line(&mut batch, self.worker, entry);
        if batch.len() >= limits::ACCESS_BATCH_BYTES {
            self.lines.hand_over(&batch);
            batch.clear();
        }
    }

    /// Hands over what was gathered; on every tick, so that no line is late for long.
    pub(super) fn flush(&self) {
        let mut batch = self.batch.borrow_mut();
        if !batch.is_empty() {
            self.lines.hand_over(&batch);
            batch.clear();
        }
    }
}

/// What a line will tell of a request's head and body, whose memory may be gone when it is written.
#[derive(Debug)]
pub(super) struct Asked {
    http_method: Box<str>,
    path: Box<str>,
    name: Option<Box<str>>,
    /// The trace of the `traceparent` that came.
    trace: Option<TraceParent>,
}

impl Asked {
    pub(super) fn of(head: &RequestHead, bytes: &[u8]) -> Self {
        Self {
            http_method: cut(head.method_text(bytes), limits::METHOD_BYTES_MAX),
            path: cut(head.path(bytes), limits::ACCESS_PATH_BYTES_MAX),
            name: None,
            trace: head.traceparent(bytes),
        }
    }

    /// The tool, prompt, resource or task that is asked for, decoded.
    pub(super) fn set_name(&mut self, name: &[u8]) {
        self.name = Some(cut(name, limits::ACCESS_NAME_BYTES_MAX));
    }
}

/// As text of at most `bytes_max` bytes, cut between characters.
fn cut(text: &[u8], bytes_max: usize) -> Box<str> {
    // A character that is cut in two here becomes a replacement character, and is cut off below.
    let text = String::from_utf8_lossy(&text[..text.len().min(bytes_max + 4)]);
    text[..text.floor_char_boundary(bytes_max)].into()
}

/// All that a line says.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// Wall clock when the request ended, since the Unix epoch.
    pub(super) ended: Duration,
    /// The peer's address.
    pub(super) client: &'a str,
    pub(super) asked: &'a Asked,
    pub(super) mcp_method: Option<&'a str>,
    pub(super) status: Option<u16>,
    pub(super) refused: Option<Refusal>,
    pub(super) route: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
    pub(super) era: Era,
    pub(super) share: Share,
    pub(super) times: Times,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// The trace that the backend was told, if that was ours to say.
    pub(super) trace: Option<&'a TraceParent>,
}

/// Where a request's time went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) whole: Duration,
    /// In the proxy itself.
    pub(super) own: Duration,
    /// Waiting for the backend, if it was asked.
    pub(super) upstream: Option<Duration>,
}

/// Appends a line.
pub(super) fn write_line(out: &mut Vec<u8>, worker: usize, entry: &Entry<'_>) {
    let Entry { asked, times, .. } = entry;
    let trace_id = entry.trace.or(asked.trace.as_ref()).map(TraceParent::trace_id_text);
    let mut line = Line { out, separator: b'{' };
    line.member("time", |out| time(out, entry.ended));
    line.text("client", Some(entry.client));
    line.text("http_method", Some(&asked.http_method));
    line.text("path", Some(&asked.path));
    line.text("mcp_method", entry.mcp_method);
    line.text("name", asked.name.as_deref());
    line.number("status", entry.status.map(u64::from));
    line.text("refused", entry.refused.map(Refusal::label));
    line.text("route", entry.route);
    line.text("backend", entry.backend);
    line.text("era", Some(entry.era.label()));
    line.text("share", Some(entry.share.label()));
    line.millis("duration_ms", Some(times.whole));
    line.millis("proxy_ms", Some(times.own));
    line.millis("upstream_ms", times.upstream);
    line.number("request_bytes", Some(entry.request_bytes));
    line.number("response_bytes", Some(entry.response_bytes));
    line.text("trace_id", trace_id.as_ref().and_then(|id| str::from_utf8(id).ok()));
    line.number("worker", Some(worker as u64));
    line.out.extend_from_slice(b"}\n");
}

/// A JSON object as it is written. Names are ours, and need no escapes.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    /// What comes before the next member.
    separator: u8,
}

impl Line<'_> {
    fn member(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.out.extend_from_slice(&[self.separator, b'"']);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.separator = b',';
        value(self.out);
    }

    fn optional<T>(&mut self, name: &str, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
        self.member(name, |out| match value {
            Some(value) => write(out, value),
            None => out.extend_from_slice(b"null"),
        });
    }

    fn text(&mut self, name: &str, text: Option<&str>) {
        // Writing text into memory does not fail.
        self.optional(name, text, |out, text| drop(serde_json::to_writer(out, text)));
    }

    fn number(&mut self, name: &str, number: Option<u64>) {
        self.optional(name, number, decimal);
    }

    /// With three digits behind the point: microseconds.
    fn millis(&mut self, name: &str, duration: Option<Duration>) {
        self.optional(name, duration, |out, duration| {
            decimal(out, duration.as_secs().saturating_mul(1000).saturating_add(duration.subsec_millis().into()));
            out.push(b'.');
            padded(out, duration.subsec_micros() % 1000, 3);
        });
    }
}

/// RFC 3339, UTC, milliseconds, in quotes.
fn time(out: &mut Vec<u8>, since_epoch: Duration) {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    // A clock that stands beyond the year 9999 says nothing that could be written.
    let at = UtcDateTime::from_unix_timestamp(seconds).unwrap_or(UtcDateTime::UNIX_EPOCH);
    let (hour, minute, second) = at.as_hms();
    let parts = [
        (b'"', at.year().unsigned_abs(), 4),
        (b'-', u8::from(at.month()).into(), 2),
        (b'-', at.day().into(), 2),
        (b'T', hour.into(), 2),
        (b':', minute.into(), 2),
        (b':', second.into(), 2),
        (b'.', since_epoch.subsec_millis(), 3),
    ];
    for (before, number, digits) in parts {
        out.push(before);
        padded(out, number, digits);
    }
    out.extend_from_slice(b"Z\"");
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// With zeros in front.
fn padded(out: &mut Vec<u8>, number: u32, digits: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(number).as_bytes();
    out.extend(std::iter::repeat_n(b'0', digits.saturating_sub(text.len())));
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::HeadLimits;
    use crate::seam::access_lines;

    const TRACE: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn asked(request: &str) -> Asked {
        let limits = HeadLimits { head_bytes_max: 9000, target_bytes_max: 8000, headers_max: 16 };
        let mut head = RequestHead::default();
        assert!(matches!(head.decode(request.as_bytes(), &limits), Ok(Some(_))), "{request}");
        Asked::of(&head, request.as_bytes())
    }

    fn get(path: &str) -> Asked {
        asked(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
    }

    /// Of a request of which nothing is known but what it asked.
    fn entry(asked: &Asked) -> Entry<'_> {
        Entry {
            ended: Duration::from_millis(1_785_283_200_007),
            client: "192.0.2.1",
            asked,
            mcp_method: None,
            status: None,
            refused: None,
            route: None,
            backend: None,
            era: Era::None,
            share: Share::None,
            times: Times { whole: Duration::ZERO, own: Duration::ZERO, upstream: None },
            request_bytes: 0,
            response_bytes: 0,
            trace: None,
        }
    }

    fn line(entry: &Entry<'_>) -> Value {
        let mut out = Vec::new();
        write_line(&mut out, 3, entry);
        assert_eq!(out.pop(), Some(b'\n'));
        assert!(!out.contains(&b'\n'));
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn a_line_says_all_that_is_known() {
        let mut asked = asked("POST /mcp/b?secret=1 HTTP/1.1\r\nHost: h\r\n\r\n");
        asked.set_name(b"forecast");
        let trace = TraceParent::parse(TRACE).expect("valid");
        let times = Times {
            whole: Duration::from_micros(1_234_567),
            own: Duration::from_micros(1_009),
            upstream: Some(Duration::from_secs(7_200)),
        };
        let entry = Entry {
            mcp_method: Some("tools/call"),
            status: Some(200),
            refused: Some(Refusal::StreamIdleTimeout),
            route: Some("/mcp/{backend}"),
            backend: Some("b"),
            era: Era::Modern,
            share: Share::Leader,
            times,
            request_bytes: 11,
            response_bytes: u64::MAX,
            trace: Some(&trace),
            ..entry(&asked)
        };
        let expected = json!({
            "time": "2026-07-29T00:00:00.007Z",
            "client": "192.0.2.1",
            "http_method": "POST",
            "path": "/mcp/b",
            "mcp_method": "tools/call",
            "name": "forecast",
            "status": 200,
            "refused": "stream_idle_timeout",
            "route": "/mcp/{backend}",
            "backend": "b",
            "era": "modern",
            "share": "leader",
            "duration_ms": 1234.567,
            "proxy_ms": 1.009,
            "upstream_ms": 7_200_000.0,
            "request_bytes": 11,
            "response_bytes": u64::MAX,
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "worker": 3,
        });
        assert_eq!(line(&entry), expected);
    }

    #[test]
    fn what_is_not_known_is_null() {
        let asked = get("/");
        let line = line(&entry(&asked));
        for member in ["mcp_method", "name", "status", "refused", "route", "backend", "upstream_ms", "trace_id"] {
            assert_eq!(line.get(member), Some(&Value::Null), "{member}");
        }
    }

    #[test]
    fn texts_are_escaped_and_cut_between_characters() {
        let mut asked = get(&format!("/\"\\{}", "p".repeat(5000)));
        let path = line(&entry(&asked))["path"].as_str().expect("a text").to_owned();
        assert!(path.starts_with("/\"\\ppp") && path.len() == limits::ACCESS_PATH_BYTES_MAX);
        let long = "é".repeat(200);
        for (name, shown) in [
            (&b"plain"[..], "plain"),
            (b"", ""),
            (b"a \"b\" \\ \n\r\x00\x1b end", "a \"b\" \\ \n\r\0\u{1b} end"),
            ("Grüße 😀".as_bytes(), "Grüße 😀"),
            (b"broken \xff\xfe", "broken \u{fffd}\u{fffd}"),
            (long.as_bytes(), &"é".repeat(128)),
            (&[b"x", long.as_bytes()].concat(), &format!("x{}", "é".repeat(127))),
            (&[0xff; 1000], &"\u{fffd}".repeat(85)),
        ] {
            asked.set_name(name);
            assert_eq!(line(&entry(&asked))["name"], shown);
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let asked = get("/");
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (4_102_444_799, "2099-12-31T23:59:59.000Z"),
            (u64::MAX, "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(line(&Entry { ended: Duration::from_secs(seconds), ..entry(&asked) })["time"], text);
        }
    }

    #[test]
    fn the_trace_is_the_one_that_came_unless_another_was_told() {
        let trace = String::from_utf8_lossy(TRACE);
        let asked = asked(&format!("GET / HTTP/1.1\r\nHost: h\r\ntraceparent: {trace}\r\n\r\n"));
        assert_eq!(line(&entry(&asked))["trace_id"], trace[3..35]);
        let other = TraceParent { trace_id: [0xab; 16], ..TraceParent::parse(TRACE).expect("valid") };
        assert_eq!(line(&Entry { trace: Some(&other), ..entry(&asked) })["trace_id"], "ab".repeat(16));
    }

    #[test]
    fn lines_are_handed_over_when_they_are_many_or_when_it_is_time() {
        let (lines, batches) = access_lines(8);
        let log = AccessLog::new(0, lines);
        let asked = get("/");
        log.flush();
        assert!(batches.try_recv().is_err(), "there was nothing");
        let mut count = 0;
        while batches.is_empty() {
            log.write(&entry(&asked));
            count += 1;
        }
        let first = batches.try_recv().expect("a batch");
        assert!(first.len() >= limits::ACCESS_BATCH_BYTES && first.ends_with(b"}\n"));
        assert_eq!(first.iter().filter(|byte| **byte == b'\n').count(), count);
        log.write(&entry(&asked));
        assert!(batches.is_empty());
        log.flush();
        assert_eq!(batches.try_recv().expect("the rest").len(), first.len() / count);
    }
}
