//! A call runs once at most because of us, wherever the exchange is broken off: at every byte of the
//! request and of the answer, by the backend or by the client, on fresh and on reused connections.
//!
//! One call at a time, so that whatever a backend's connection carries belongs to it. A connection
//! on which so much as one byte of the call arrives counts as an execution: no other may follow.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;

use crate::support::backend::Exchange;
use crate::support::client::{CALL, post};
use crate::support::random::Random;
use crate::support::wire::{Asked, messages};
use crate::support::{Backend, Client, Gate, Proxy, eventually, json};

/// Where the call being made is broken off, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The backend ends its connection when it has read that many bytes of the request.
    Request(usize),
    /// It ends it when it has read the request and sent that many bytes of the answer.
    Answer(usize),
    /// The client leaves when it has sent that many bytes.
    Sent(usize),
    /// It leaves when it has read that many bytes of the answer.
    Read(usize),
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    End,
    Reset,
}

/// What the test and its backend tell one another of the call being made.
#[derive(Default)]
struct Call {
    /// 0: none; else `Request` (odd) or `Answer` (even) of `(cut - 1) / 2`, once.
    cut: AtomicUsize,
    reset: AtomicUsize,
    /// Connections on which a byte of the call arrived.
    heard: AtomicUsize,
    /// Times the call was read whole.
    executed: AtomicUsize,
    /// Bytes of the request as the backend read it last.
    length: AtomicUsize,
    /// Connections that the backend is done with.
    ended: AtomicUsize,
}

impl Call {
    fn begin(&self, cut: Option<Cut>, way: Way) {
        self.heard.store(0, Ordering::SeqCst);
        self.executed.store(0, Ordering::SeqCst);
        self.reset.store(usize::from(way == Way::Reset), Ordering::SeqCst);
        let code = match cut {
            Some(Cut::Request(at)) => 2 * at + 1,
            Some(Cut::Answer(at)) => 2 * at + 2,
            _ => 0,
        };
        self.cut.store(code, Ordering::SeqCst);
    }

    /// What this connection is to do to the call; the next one that hears of it does nothing.
    fn take_cut(&self) -> Option<Cut> {
        match self.cut.swap(0, Ordering::SeqCst) {
            0 => None,
            code if code % 2 == 1 => Some(Cut::Request((code - 1) / 2)),
            code => Some(Cut::Answer((code - 2) / 2)),
        }
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }

    fn executed(&self) -> usize {
        self.executed.load(Ordering::SeqCst)
    }
}

fn answer() -> String {
    json(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"done"}]}}"#)
}

/// Serves one connection, breaking off where the call says.
fn serve(exchange: &mut Exchange, call: &Call) {
    while let Ok(1..) = exchange.stream.peek(&mut [0]) {
        call.heard.fetch_add(1, Ordering::SeqCst);
        let cut = call.take_cut();
        if cut.is_some() && call.reset.load(Ordering::SeqCst) == 1 {
            SockRef::from(&exchange.stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        if let Some(Cut::Request(at)) = cut {
            let _ = exchange.stream.read_exact(&mut vec![0; at]);
            return;
        }
        let Some(request) = exchange.request() else { return };
        call.executed.fetch_add(1, Ordering::SeqCst);
        call.length.store(request.len(), Ordering::SeqCst);
        let answer = answer();
        if let Some(Cut::Answer(at)) = cut {
            exchange.send(&answer.as_bytes()[..at]);
            return;
        }
        if !exchange.send(answer) {
            return;
        }
    }
}

const BODY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":{}}}"#;

/// How the client sends its call: in one piece, or so that the body is streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Whole,
    Chunked,
}

impl Shape {
    fn head(self) -> String {
        let framing = match self {
            Self::Whole => format!("Content-Length: {}", BODY.len()),
            Self::Chunked => "Transfer-Encoding: chunked".to_owned(),
        };
        format!("POST /mcp/b HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{framing}\r\n\r\n")
    }

    fn request(self) -> String {
        match self {
            Self::Whole => self.head() + BODY,
            Self::Chunked => format!("{}{:x}\r\n{BODY}\r\n0\r\n\r\n", self.head(), BODY.len()),
        }
    }
}

/// A proxy before a backend that breaks off as told.
struct Stage {
    proxy: Proxy,
    call: Arc<Call>,
    backend: Backend,
    /// Whether calls go out on a connection that has served before.
    reused: bool,
}

impl Stage {
    fn new(reused: bool) -> Self {
        let call = Arc::new(Call::default());
        let script = Arc::clone(&call);
        let backend = Backend::scripted(move |exchange| {
            serve(exchange, &script);
            script.ended.fetch_add(1, Ordering::SeqCst);
        });
        let keys = if reused { "" } else { "idle_conns_max = 0" };
        let proxy = Proxy::builder().workers(1).backend_with("b", &[backend.address()], keys).start();
        Self { proxy, call, backend, reused }
    }

    /// A call that nobody disturbs: how many bytes of request the backend got. Where connections are
    /// kept there is one in the pool then.
    fn undisturbed(&self, shape: Shape) -> usize {
        self.call.begin(None, Way::End);
        let mut client = self.proxy.client();
        self.send(&mut client, shape, shape.request().len());
        assert_eq!(client.response().status, 200);
        drop(client);
        self.comes_to_rest();
        assert_eq!((self.call.heard(), self.call.executed()), (1, 1));
        self.call.length.load(Ordering::SeqCst)
    }

    /// Makes the call, broken off as said: what the client has seen.
    fn play(&self, cut: Cut, way: Way, shape: Shape) -> Vec<u8> {
        if self.reused {
            self.undisturbed(Shape::Whole);
        }
        self.call.begin(Some(cut), way);
        let mut client = self.proxy.client();
        self.send(&mut client, shape, if let Cut::Sent(at) = cut { at } else { shape.request().len() });
        let mut seen = Vec::new();
        match cut {
            Cut::Sent(_) => {}
            Cut::Read(at) => seen = client.exactly(at),
            // A reset may follow an answer that was cut.
            Cut::Request(_) | Cut::Answer(_) => drop(client.stream.read_to_end(&mut seen)),
        }
        match way {
            Way::End => drop(client),
            Way::Reset => client.reset(),
        }
        self.comes_to_rest();
        seen
    }

    /// Sends the first `length` bytes of the call, the body of a chunked one when the backend has heard
    /// of its head.
    fn send(&self, client: &mut Client, shape: Shape, length: usize) {
        let request = shape.request();
        let split = if shape == Shape::Chunked { shape.head().len().min(length) } else { length };
        client.send(&request.as_bytes()[..split]);
        if split < length {
            eventually("the backend hears of the call", || self.call.heard() == 1);
            // It may have ended the exchange already, and with it the client's connection.
            let _ = client.stream.write_all(&request.as_bytes()[split..length]);
        }
    }

    /// Waits until the proxy has nothing in flight and the backend has done all that it was made to.
    fn comes_to_rest(&self) {
        eventually("proxy and backend are at rest", || {
            let page = self.proxy.admin("GET", "/metrics").text();
            let value = |sample: &str| -> usize {
                let line = page.lines().find_map(|line| line.strip_prefix(sample)).expect("a metric");
                line.trim().parse().expect("a whole number")
            };
            let made = value("ringway_upstream_connects_total ");
            let open = value("ringway_connections{side=\"upstream\"} ");
            let ended = self.call.ended.load(Ordering::SeqCst);
            let accepted = self.backend.connections();
            value("ringway_exchanges ") == 0
                && value("ringway_connections{side=\"client\"} ") == 0
                // A connection whose client left before it was made is accepted and not counted.
                && accepted >= made
                && accepted - ended == open
        });
    }

    /// Breaks the call off at each of the places and checks what came of it.
    fn check_all(&self, shape: Shape, cuts: impl Iterator<Item = Cut>) -> usize {
        let mut played = 0;
        for cut in cuts {
            let way = if played % 2 == 0 { Way::End } else { Way::Reset };
            let seen = self.play(cut, way, shape);
            played += 1;
            let what = format!("{cut:?} by {way:?}, {shape:?}, reused: {}", self.reused);
            let (heard, executed) = (self.call.heard(), self.call.executed());
            assert!(heard <= 1, "{what}: {heard} connections heard of the call");
            assert!(executed <= 1, "{what}: executed {executed} times");
            match cut {
                Cut::Request(_) => assert_one_answer(&seen, None, &what),
                Cut::Answer(at) => {
                    assert_eq!(executed, 1, "{what}");
                    assert_one_answer(&seen, Some(at), &what);
                }
                // Not the whole request has come: nothing of it may run.
                Cut::Sent(at) if at < shape.request().len() => assert_eq!(executed, 0, "{what}"),
                Cut::Sent(_) => {}
                Cut::Read(_) => assert_eq!(executed, 1, "{what}"),
            }
        }
        // And the next call is served as if nothing had been.
        self.undisturbed(shape);
        played
    }
}

/// The client has one answer: ours, or the backend's as far as it came, and then visibly cut off.
fn assert_one_answer(seen: &[u8], sent: Option<usize>, what: &str) {
    let answers = messages(seen, Asked::Get).unwrap_or_else(|fault| panic!("{what}: {fault}"));
    // A reset can take with it what was on its way: then the client has nothing, or a part.
    let Some(answer) = answers.first() else { return };
    assert_eq!(answers.len(), 1, "{what}: {answers:?}");
    match answer.status {
        502 => assert!(answer.whole, "{what}: {answer:?}"),
        200 if sent == Some(crate::at_most_once::answer().len()) => {}
        200 => assert!(sent.is_some() && !answer.whole, "{what}: {answer:?}"),
        _ => panic!("{what}: {answer:?}"),
    }
}

/// Runs the cuts of one kind on fresh and on reused connections, with the body at hand and streamed.
fn everywhere(cuts: fn(&Stage, Shape) -> Vec<Cut>) {
    let mut played = 0;
    for reused in [false, true] {
        let stage = Stage::new(reused);
        for shape in [Shape::Whole, Shape::Chunked] {
            played += stage.check_all(shape, cuts(&stage, shape).into_iter());
        }
    }
    println!("broken off at {played} places");
    assert!(played >= 200, "only {played} places");
}

#[test]
fn a_backend_that_ends_inside_the_request_runs_it_once_at_most() {
    everywhere(|stage, shape| (0..=stage.undisturbed(shape)).map(Cut::Request).collect());
}

#[test]
fn a_backend_that_ends_inside_its_answer_has_run_the_call_once() {
    everywhere(|_, _| (0..=answer().len()).map(Cut::Answer).collect());
}

#[test]
fn a_client_that_leaves_inside_its_request_has_run_nothing() {
    everywhere(|_, shape| (0..=shape.request().len()).map(Cut::Sent).collect());
}

#[test]
fn a_client_that_leaves_inside_the_answer_has_run_its_call_once() {
    everywhere(|_, _| (1..=answer().len()).map(Cut::Read).collect());
}

#[test]
fn a_call_after_an_idle_connection_has_ended_succeeds() {
    const CALLS: usize = 100;
    let (now, ended) = (Gate::new(), Gate::new());
    let (told, done) = (now.clone(), ended.clone());
    let backend = Backend::scripted(move |exchange| {
        exchange.request();
        exchange.send(answer());
        told.pass();
        exchange.close();
        done.open();
    });
    let proxy = Proxy::builder().workers(1).backend("b", &[backend.address()]).start();
    let mut client = proxy.client();
    for _ in 0..CALLS {
        assert_eq!(client.call().status, 200);
        now.open();
        ended.pass();
    }
    assert_eq!((backend.requests(), backend.connections()), (CALLS, CALLS), "each ran once");
    assert_eq!(proxy.refused("upstream_closed"), 0.0);
}

#[test]
fn a_call_that_races_with_the_end_of_an_idle_connection_runs_once_at_most() {
    const CALLS: usize = 400;
    const SEED: u64 = 4;
    let executed: Arc<Vec<AtomicUsize>> = Arc::new((0..CALLS).map(|_| AtomicUsize::new(0)).collect());
    let counts = Arc::clone(&executed);
    let backend = Backend::scripted(move |exchange| {
        let mut random = Random::new(SEED + exchange.connection as u64);
        while let Some(request) = exchange.request() {
            let number = request.lines().find_map(|line| line.strip_prefix("X-Call: ")).unwrap();
            counts[number.parse::<usize>().unwrap()].fetch_add(1, Ordering::SeqCst);
            exchange.send(answer());
            // Ends about when the next call goes out, before it is read or instead.
            for _ in 0..random.below(60) {
                std::thread::yield_now();
            }
            if random.one_in(2) {
                return;
            }
        }
    });
    let proxy = Proxy::builder().workers(1).backend("b", &[backend.address()]).start();
    let mut client = proxy.client();
    let mut failed = 0;
    for number in 0..CALLS {
        client.send(post(CALL).replace("Host: test", &format!("Host: test\r\nX-Call: {number}")));
        let status = client.response().status;
        assert!(matches!(status, 200 | 502), "{status}");
        let runs = executed[number].load(Ordering::SeqCst);
        assert!(runs <= 1, "call {number} ran {runs} times");
        assert!(status != 200 || runs == 1, "call {number} was answered and did not run");
        failed += usize::from(status == 502);
    }
    // A call whose bytes met the end is not repeated; all others are served on another connection.
    println!("{failed} of {CALLS} calls met the end of their connection (seed {SEED})");
    assert_eq!(proxy.refused("upstream_closed") as usize, failed);
    assert_eq!(proxy.metric("ringway_retries_total"), 0.0, "a call was sent again");
}
