//! Subscriptions of Ringway's own to the change notifications of its backends, so that what is kept is
//! dropped when it changes, whoever is connected.
//!
//! One a backend and process: the worker that owns the backend's name holds it. It carries no
//! credential, so it is for backends that tell changes to everybody. While it is down nothing is lost
//! but promptness: answers still end with their time.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ahash::AHashMap;

use super::Stop;
use super::answer::{HeadTerms, await_answer, write_upstream};
use super::core::{Core, head_limits};
use super::download::see_message;
use super::panic::Guarded;
use crate::clock::Tick;
use crate::config::model::Subscribe;
use crate::error::ProxyError;
use crate::http::{self, BodyDecoder, Buffer, HttpError, ResponseHead, Target};
use crate::mcp::{EventReader, MethodLabel, ProtocolVersion, negotiated_version};
use crate::upstream::{Cluster, Endpoint, Freshness, Lease, UpstreamError};

/// Subscriptions of one worker, by their cluster's epochs: a changed backend gets a new one.
#[derive(Default)]
pub(super) struct Subscriptions(RefCell<AHashMap<u64, Subscription>>);

/// A running subscription. Dropped, it ends at once: so does the future that holds its connection.
struct Subscription(Rc<Stop>);

/// Between the end of a subscription and the next attempt: doubled with each failure in a row, from the
/// first of these to the second, with a random part (P-069).
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A notification longer than this is passed over.
const EVENT_BYTES_MAX: usize = 64 * 1024;

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.tell();
    }
}

impl Subscriptions {
    /// Starts what the snapshot in force asks of this worker, and ends what it does not.
    pub(super) fn follow(&self, core: &Rc<Core>) {
        let snapshot = core.snapshot();
        let ours = snapshot.clusters.subscribed().filter(|cluster| core.sharing.owns(cluster.name.as_bytes()));
        let wanted: AHashMap<u64, &Arc<Cluster>> = ours.map(|cluster| (cluster.epochs.id, cluster)).collect();
        let mut running = self.0.borrow_mut();
        running.retain(|id, _| wanted.contains_key(id));
        for (id, cluster) in wanted {
            running.entry(id).or_insert_with(|| start(core, cluster));
        }
    }

    /// Ends all: the worker drains.
    pub(super) fn end(&self) {
        self.0.borrow_mut().clear();
    }
}

fn start(core: &Rc<Core>, cluster: &Arc<Cluster>) -> Subscription {
    let stop = Rc::new(Stop::default());
    let subscriber = Subscriber { core: Rc::clone(core), cluster: Arc::clone(cluster) };
    let mut work = Guarded::new(async move { subscriber.run().await });
    let (core, told) = (Rc::clone(core), Rc::clone(&stop));
    monoio::spawn(async move {
        let ended = poll_fn(|cx| {
            if told.is_told(cx) {
                return Poll::Ready(Ok(()));
            }
            Pin::new(&mut work).poll(cx)
        });
        if ended.await.is_err() {
            core.stats.borrow_mut().panics += 1;
        }
    });
    Subscription(stop)
}

struct Subscriber {
    core: Rc<Core>,
    cluster: Arc<Cluster>,
}

impl Subscriber {
    async fn run(self) {
        let (first, last) = BACKOFF;
        let mut pause = first;
        loop {
            let ended = match self.cluster.backend.cache.subscribe {
                Subscribe::Off => return,
                Subscribe::Listen => self.listen().await,
                Subscribe::GetStream => self.get_stream().await,
            };
            pause = match ended {
                Ok(()) => first,
                Err(error) => {
                    tracing::debug!(backend = &*self.cluster.name, error = error.message(), "no subscription");
                    (2 * pause).min(last)
                }
            };
            if !self.core.rest(pause + self.core.jitter(pause)).await {
                return;
            }
        }
    }

    /// Holds a `subscriptions/listen` (2026-07-28, "Subscriptions").
    async fn listen(&self) -> Result<(), ProxyError> {
        let version = ProtocolVersion::V2026_07_28.label();
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"ringway","method":"subscriptions/listen","params":{{"notifications":{{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{{"name":"ringway","version":"{}"}}}}}}}}"#,
            env!("CARGO_PKG_VERSION")
        );
        let fields = format!("MCP-Protocol-Version: {version}\r\nMcp-Method: subscriptions/listen\r\n");
        let answer = self.ask("POST", &fields, &body, None).await?;
        self.follow(answer).await
    }

    /// Opens a session and holds its GET stream (2025-03-26 to 2025-11-25, "Listening for messages").
    async fn get_stream(&self) -> Result<(), ProxyError> {
        let version = ProtocolVersion::V2025_11_25.label();
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"ringway","method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{"name":"ringway","version":"{}"}}}}}}"#,
            env!("CARGO_PKG_VERSION")
        );
        let opened = self.ask("POST", "", &body, None).await?;
        let session = opened.head.session_id(opened.buffer.filled()).map(|id| String::from_utf8_lossy(id).into_owned());
        let endpoint = Arc::clone(opened.lease.endpoint());
        let negotiated = self.negotiated(opened).await?;
        let mut fields = format!("MCP-Protocol-Version: {negotiated}\r\n");
        if let Some(session) = session {
            fields.push_str(&format!("Mcp-Session-Id: {session}\r\n"));
        }
        let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        self.ask("POST", &fields, note, Some(&endpoint)).await?;
        let answer = self.ask("GET", &fields, "", Some(&endpoint)).await?;
        self.follow(answer).await
    }

    /// The version that an `initialize` was answered with.
    async fn negotiated(&self, mut opened: Answer) -> Result<String, ProxyError> {
        let mut version = None;
        let is_stream = opened.head.is_event_stream(opened.buffer.filled());
        let mut whole = Vec::new();
        let mut reader = EventReader::new(EVENT_BYTES_MAX);
        while version.is_none() && whole.len() < EVENT_BYTES_MAX {
            let Some(piece) = self.next_piece(&mut opened).await? else {
                break;
            };
            if is_stream {
                reader.feed(&piece, |event| version = negotiated_version(event.data));
            } else {
                whole.extend_from_slice(&piece);
                version = negotiated_version(&whole);
            }
        }
        let version = version.filter(|version| *version != ProtocolVersion::Unknown);
        Ok(version.ok_or(UpstreamError::Malformed(HttpError::Truncated))?.label().to_owned())
    }

    /// One request of ours and its answer's head, which has to be a success.
    async fn ask(
        &self,
        method: &str,
        fields: &str,
        body: &str,
        endpoint: Option<&Arc<Endpoint>>,
    ) -> Result<Answer, ProxyError> {
        let (core, backend) = (&self.core, &self.cluster.backend);
        let mut lease = match endpoint {
            Some(endpoint) => core.upstreams.lease_pinned(endpoint, backend, Freshness::New).await,
            None => core.upstreams.lease(&self.cluster, None, Freshness::New).await,
        }?;
        let at = Arc::clone(lease.endpoint());
        let mut out = Vec::new();
        http::request_line(&mut out, method.as_bytes(), &Target::at(&at.authority, &at.path, b"", b""));
        let length = if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let accept = if method == "GET" { "text/event-stream" } else { "application/json, text/event-stream" };
        let head = format!("Accept: {accept}\r\nContent-Type: application/json\r\n{fields}{length}\r\n{body}");
        out.extend_from_slice(head.as_bytes());
        let limits = core.snapshot().limits.clone();
        let now = core.deadlines.now();
        lease.socket().deadline.set(now.after(limits.write_timeout));
        write_upstream(&mut lease, &out).await;
        let first_byte = core.deadlines.now().after(backend.first_byte_timeout);
        let terms = HeadTerms { limits: head_limits(&limits), first_byte, due: Tick::NEVER };
        let mut head = Box::<ResponseHead>::default();
        let (buffer, at) = await_answer(core, &mut lease, &mut head, terms, None).await?;
        if !(200..300).contains(&head.status) {
            return Err(UpstreamError::Malformed(HttpError::StartLine).into());
        }
        let decoder = BodyDecoder::new(head.body_for(http::Method::Post));
        Ok(Answer { lease, head, buffer, at, decoder })
    }

    /// The next piece of an answer's payload; nothing at its end.
    async fn next_piece(&self, answer: &mut Answer) -> Result<Option<Vec<u8>>, ProxyError> {
        loop {
            if answer.at < answer.buffer.len() && !answer.decoder.is_done() {
                let rest = &answer.buffer.filled()[answer.at..];
                let (used, run) = answer.decoder.decode(rest).map_err(UpstreamError::Malformed)?;
                let piece = rest[run].to_vec();
                answer.at += used;
                if !piece.is_empty() {
                    return Ok(Some(piece));
                }
                continue;
            }
            if answer.decoder.is_done() {
                return Ok(None);
            }
            // The head's bytes are not needed any more, nor are those that were passed on.
            self.core.buffers.give(std::mem::take(&mut answer.buffer));
            answer.at = 0;
            let idle = self.core.deadlines.now().after(self.cluster.backend.stream_idle_timeout);
            answer.lease.socket().deadline.set(idle);
            answer.lease.socket().readable().await.map_err(|_| UpstreamError::Closed)?;
            let mut buffer = self.core.buffers.small();
            match answer.lease.socket().try_read(buffer.space()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.core.buffers.give(buffer),
                Ok(0) | Err(_) => {
                    self.core.buffers.give(buffer);
                    answer.decoder.end().map_err(UpstreamError::Malformed)?;
                }
                Ok(read) => {
                    buffer.advance(read);
                    answer.buffer = buffer;
                }
            }
        }
    }

    /// Reads notifications until the stream ends.
    async fn follow(&self, mut answer: Answer) -> Result<(), ProxyError> {
        if !answer.head.is_event_stream(answer.buffer.filled()) {
            return Err(UpstreamError::Malformed(HttpError::StartLine).into());
        }
        // What was said while nobody listened is not known: everything may have changed, before the
        // subscription began and when it has ended.
        self.cluster.epochs.advance_all();
        let mut reader = EventReader::new(EVENT_BYTES_MAX);
        let ended = loop {
            match self.next_piece(&mut answer).await {
                Ok(Some(piece)) => reader.feed(&piece, |event| {
                    let seen = see_message(&self.cluster.epochs, MethodLabel::Other, event.data);
                    seen.into_iter().for_each(|reason| self.core.count(reason));
                }),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.cluster.epochs.advance_all();
        ended
    }
}

/// An answer whose head has come.
struct Answer {
    lease: Lease,
    head: Box<ResponseHead>,
    buffer: Buffer,
    /// First byte of the body that was not decoded.
    at: usize,
    decoder: BodyDecoder,
}
