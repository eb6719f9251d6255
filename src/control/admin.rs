//! The admin listener: what operators, their Prometheus and their orchestrator ask.
//!
//! One request a connection: scrapes are seconds apart, and a connection that ends cannot leak or
//! desynchronise. Everything is bounded: head, body, time, connections. Who may ask: with a token,
//! its bearer; without one (loopback only, says the configuration) whoever can connect, except a web
//! page that a browser on this machine shows: it is known by a foreign `Origin` or, after DNS
//! rebinding, by a foreign `Host`. Probes are open to all.

use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::time::timeout;
use serde_json::json;
use tracing::warn;

use super::process::ProcessStats;
use super::response::Response;
use super::{Control, Outcome, gather, prometheus, reload, views};
use crate::config::model::Admin;
use crate::http::{BodyLength, HeadLimits, Method, RequestHead};
use crate::limits;

const HEAD_LIMITS: HeadLimits = HeadLimits { head_bytes_max: 16 * 1024, target_bytes_max: 2 * 1024, headers_max: 64 };

/// No request needs a body; one of a polite size is read and dropped.
const BODY_BYTES_MAX: u64 = 64 * 1024;

/// To read a request, and again to write its answer; then the connection is closed.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// Taken from a connection at a time.
const READ_BYTES: usize = 4096;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;

/// How soon a full house, or a failure to accept, is looked at again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// Serves the admin pages on a bound listener until the loop ends.
pub(super) fn listen(control: &Rc<Control>, listener: std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    control.tasks.spawn(accept(Rc::clone(control), TcpListener::from_std(listener)?));
    Ok(())
}

async fn accept(control: Rc<Control>, listener: TcpListener) {
    let house = Rc::new(());
    loop {
        while Rc::strong_count(&house) > CONNECTIONS_MAX {
            monoio::time::sleep(ACCEPT_AGAIN).await;
        }
        let Some(accepted) = accept_one(&control, &listener).await else { return };
        match accepted {
            Ok((stream, _)) => {
                let (shared, place) = (Rc::clone(&control), Rc::clone(&house));
                control.tasks.spawn(async move {
                    // A client that leaves early harms nobody.
                    let _ = serve(&shared, stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept an admin connection");
                monoio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// The next connection; `None` once a successor takes them. Nothing is lost when the pending accept
/// is dropped: on epoll it is only an interest. Tasks of this loop are all polled together, so the
/// flag is seen without a waker of its own.
async fn accept_one(
    control: &Control,
    listener: &TcpListener,
) -> Option<io::Result<(TcpStream, std::net::SocketAddr)>> {
    let mut accept = pin!(listener.accept());
    poll_fn(|cx| match control.handed_over.get() {
        true => Poll::Ready(None),
        false => accept.as_mut().poll(cx).map(Some),
    })
    .await
}

/// Serves one request. A timeout drops a pending read or write, which is safe here alone: the
/// connection is closed with it.
async fn serve(control: &Control, mut stream: TcpStream) -> io::Result<()> {
    let (response, with_body) = match timeout(TRANSFER_TIMEOUT, read_request(&mut stream)).await?? {
        Ok(request) => (answer(control, &request).await, request.method != Method::Head),
        Err(refusal) => (refusal, true),
    };
    timeout(TRANSFER_TIMEOUT, send(&mut stream, response.encode(with_body))).await?
}

/// What matters of a request.
#[derive(Clone, Debug, Default)]
struct Request {
    method: Method,
    path: Vec<u8>,
    host: Vec<u8>,
    origin: Option<Vec<u8>>,
    authorization: Option<Vec<u8>>,
}

/// Outer error: the client has gone. Inner: what to tell it.
async fn read_request(stream: &mut TcpStream) -> io::Result<Result<Request, Response>> {
    let mut bytes = Vec::new();
    let mut head = RequestHead::default();
    let head_length = loop {
        match head.decode(&bytes, &HEAD_LIMITS) {
            Ok(Some(length)) => break length,
            Ok(None) => read_more(stream, &mut bytes).await?,
            Err(fault) => return Ok(Err(Response::error(fault.status(), fault.message()))),
        }
    };
    let body_length = match head.body {
        BodyLength::None => 0,
        BodyLength::Fixed(length) if length <= BODY_BYTES_MAX => length as usize,
        BodyLength::Fixed(_) => {
            return Ok(Err(Response::error(413, "no request here needs a body")));
        }
        BodyLength::Chunked | BodyLength::UntilClose => {
            return Ok(Err(Response::error(411, "a body needs a length")));
        }
    };
    while bytes.len() < head_length + body_length {
        read_more(stream, &mut bytes).await?;
    }
    Ok(Ok(Request {
        method: head.method,
        path: head.path(&bytes).to_vec(),
        host: head.host(&bytes).to_vec(),
        origin: head.field(&bytes, b"origin").map(<[u8]>::to_vec),
        authorization: head.field(&bytes, b"authorization").map(<[u8]>::to_vec),
    }))
}

async fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let (read, piece) = stream.read(Vec::with_capacity(READ_BYTES)).await;
    if read? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.extend_from_slice(&piece);
    Ok(())
}

async fn send(stream: &mut TcpStream, bytes: Vec<u8>) -> io::Result<()> {
    stream.write_all(bytes).await.0?;
    stream.shutdown().await?;
    // Closing with bytes unread resets the connection, which may destroy the answer on its way.
    let mut dropped = Vec::new();
    while dropped.len() < limits::LINGER_BYTES_MAX {
        read_more(stream, &mut dropped).await?;
    }
    Ok(())
}

async fn answer(control: &Control, request: &Request) -> Response {
    let page = Page::at(&request.path);
    if !page.is_some_and(Page::is_probe)
        && let Err(refusal) = admit(&control.config().admin, request)
    {
        return refusal;
    }
    let Some(page) = page else {
        return Response::error(404, "no such page");
    };
    if !page.allows(request.method) {
        return Response::error(405, "method not allowed").with("allow", page.methods());
    }
    match page {
        Page::Live => plain(200, "alive\n"),
        Page::Ready if control.draining.get() => plain(503, "draining\n"),
        Page::Ready => plain(200, "ready\n"),
        Page::Metrics => metrics(control).await,
        Page::Backends => {
            let total = gather::gather(control).await.total;
            Response::json(200, &views::backends(&control.cell.load(), &total))
        }
        Page::Config => {
            let generation = control.cell.load().generation;
            Response::json(200, &views::config(&control.config(), &control.source, generation))
        }
        Page::Stats => Response::json(200, &views::stats(&gather::gather(control).await)),
        Page::Reload => reloaded(reload::run(control).await),
        Page::Cache(backend) => clear_cache(control, backend),
    }
}

/// Makes void what is kept of a backend's answers, or of everybody's.
fn clear_cache(control: &Control, backend: Option<&[u8]>) -> Response {
    let snapshot = control.cell.load();
    let chosen = |name: &str| backend.is_none_or(|backend| backend == name.as_bytes());
    let cleared: Vec<_> = snapshot.clusters.iter().filter(|cluster| chosen(&cluster.name)).collect();
    if cleared.is_empty() {
        return Response::error(404, "no such backend");
    }
    cleared.iter().for_each(|cluster| cluster.epochs.advance_all());
    control.count(|counters| counters.caches_cleared += cleared.len() as u64);
    let names: Vec<&str> = cleared.iter().map(|cluster| &*cluster.name).collect();
    Response::json(200, &json!({ "cleared": names }))
}

fn plain(status: u16, text: &str) -> Response {
    Response::text(status, "text/plain; charset=utf-8", text.to_owned())
}

async fn metrics(control: &Control) -> Response {
    let gathered = gather::gather(control).await;
    let page = prometheus::render(&prometheus::Scrape {
        gathered: &gathered,
        // Loaded behind the answers: it knows every label that is in them.
        snapshot: &control.cell.load(),
        snapshots: control.snapshots(),
        counters: control.counters.get(),
        io_driver: control.fleet.borrow().io_driver(),
        lost_log_lines: control.lost_log_lines(),
        process: ProcessStats::read(control.started),
    });
    Response::text(200, prometheus::CONTENT_TYPE, page)
}

fn reloaded(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Done(generation) => Response::json(200, &json!({ "generation": generation })),
        Outcome::Refused(faults) => Response::json(422, &views::faults(&faults)),
        Outcome::NothingToReload => Response::error(409, "nothing to reload: the embedded configuration is in force"),
        Outcome::Draining => Response::error(503, "draining"),
    }
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page<'a> {
    Live,
    Ready,
    Metrics,
    Backends,
    Config,
    Stats,
    Reload,
    /// Of one backend, or of all.
    Cache(Option<&'a [u8]>),
}

impl<'a> Page<'a> {
    fn at(path: &'a [u8]) -> Option<Self> {
        Some(match path {
            b"/livez" => Self::Live,
            b"/readyz" => Self::Ready,
            b"/metrics" => Self::Metrics,
            b"/backends" => Self::Backends,
            b"/config" => Self::Config,
            b"/stats" => Self::Stats,
            b"/reload" => Self::Reload,
            b"/cache" => Self::Cache(None),
            _ => Self::Cache(Some(path.strip_prefix(b"/cache/")?)),
        })
    }

    /// Orchestrators ask without credentials, and learn one word.
    fn is_probe(self) -> bool {
        matches!(self, Self::Live | Self::Ready)
    }

    fn allows(self, method: Method) -> bool {
        match self {
            Self::Reload => method == Method::Post,
            Self::Cache(_) => method == Method::Delete,
            _ => matches!(method, Method::Get | Method::Head),
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Self::Reload => "POST",
            Self::Cache(_) => "DELETE",
            _ => "GET, HEAD",
        }
    }
}

/// Whether this caller may see and do what is not open to all.
fn admit(admin: &Admin, request: &Request) -> Result<(), Response> {
    match &admin.token {
        Some(token) if bears(request.authorization.as_deref(), token.expose()) => Ok(()),
        Some(_) => {
            Err(Response::error(401, "needs the admin token")
                .with("www-authenticate", "Bearer realm=\"ringway admin\""))
        }
        None if !names_this_machine(&request.host) => {
            Err(Response::error(403, "without a token, Host must be an IP address or localhost"))
        }
        None if !is_own_origin(request) => Err(Response::error(403, "not for pages of other origins")),
        None => Ok(()),
    }
}

fn bears(authorization: Option<&[u8]>, token: &str) -> bool {
    let scheme = b"Bearer ";
    authorization
        .and_then(|value| value.split_at_checked(scheme.len()))
        .is_some_and(|(start, given)| start.eq_ignore_ascii_case(scheme) && same(given, token.as_bytes()))
}

/// Compares in a time that depends on the lengths only, so that a token cannot be found byte by byte.
fn same(given: &[u8], expected: &[u8]) -> bool {
    let difference = given.iter().zip(expected).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    given.len() == expected.len() && difference == 0
}

fn names_this_machine(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Browsers name the page that makes a request, unless it is a plain visit; tools name none.
fn is_own_origin(request: &Request) -> bool {
    let own = [b"http://", request.host.as_slice()].concat();
    request.origin.as_ref().is_none_or(|origin| origin.eq_ignore_ascii_case(&own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Secret;

    fn status(token: Option<&str>, request: &Request) -> u16 {
        let admin = Admin { listen: None, token: token.map(|token| Secret::new(token.into())) };
        admit(&admin, request).map_or_else(|refusal| refusal.status, |()| 200)
    }

    fn from_host(host: &str) -> Request {
        Request { host: host.into(), ..Request::default() }
    }

    #[test]
    fn without_a_token_the_host_must_name_this_machine() {
        for host in ["127.0.0.1:9090", "[::1]:9090", "[::1]", "localhost", "LOCALHOST:9090", "10.0.0.1"] {
            assert_eq!(status(None, &from_host(host)), 200, "{host}");
        }
        for host in ["", "rebound.example", "127.0.0.1.example:9090", "localhost.example"] {
            assert_eq!(status(None, &from_host(host)), 403, "{host}");
        }
    }

    #[test]
    fn without_a_token_pages_of_other_origins_are_refused() {
        let from = |origin: &str| Request { origin: Some(origin.into()), ..from_host("127.0.0.1:9090") };
        assert_eq!(status(None, &from("http://127.0.0.1:9090")), 200);
        for origin in ["http://127.0.0.1:8000", "https://page.example", "null"] {
            assert_eq!(status(None, &from(origin)), 403, "{origin}");
        }
    }

    #[test]
    fn a_token_must_be_borne() {
        let bearing = |value: &str| Request { authorization: Some(value.into()), ..from_host("admin.example") };
        assert_eq!(status(Some("secret"), &bearing("Bearer secret")), 200);
        assert_eq!(status(Some("secret"), &bearing("bearer secret")), 200);
        assert_eq!(status(Some("secret"), &from_host("127.0.0.1")), 401);
        for value in ["", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Bearer sEcret", "Basic secret"] {
            assert_eq!(status(Some("secret"), &bearing(value)), 401, "{value}");
        }
    }
}
