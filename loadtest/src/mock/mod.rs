//! A mock MCP backend: one thread, one monoio runtime, answers that cost as little as they can.
//!
//! It serves both eras at `/mcp` and below, and insists on what a proxy must carry through: the session id it minted in the
//! legacy era, the mirrored headers and `_meta` in the modern one. A proxy that loses one of them gets an error, and
//! the load generator counts a wrong answer. `GET /counts` says what reached it, by JSON-RPC method.

mod answer;
mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use monoio::io::Splitable;
use monoio::io::stream::Stream;
use monoio::net::{TcpListener, TcpStream};
use monoio_http::common::body::BodyExt;
use monoio_http::common::request::Request;
use monoio_http::h1::codec::decoder::{FillPayload, RequestDecoder};

use self::answer::{Answer, Answers, Delayed, EventStream};
use self::wire::Wire;

#[derive(Args, Debug)]
pub struct MockArgs {
    /// Address to serve on
    #[arg(long, default_value = "127.0.0.1:9001")]
    pub listen: SocketAddr,
    /// Wait this long before each answer, milliseconds
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// `ttlMs` of the first page of a modern tools/list; 0 forbids a cache to keep it. Other pages always have 0
    #[arg(long, default_value_t = 0)]
    pub list_ttl_ms: u64,
}

/// What all connections share; one thread, so no lock.
struct Mock {
    delay: Duration,
    answers: Answers,
    counts: RefCell<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: u64,
    methods: BTreeMap<String, u64>,
}

/// Serves until the process is ended.
pub fn run(args: &MockArgs) -> Result<()> {
    let mock = Rc::new(Mock {
        delay: Duration::from_millis(args.delay_ms),
        answers: Answers::new(args.list_ttl_ms),
        counts: RefCell::default(),
    });
    let listen = args.listen;
    if monoio::utils::detect_uring() {
        let mut ring = io_uring::IoUring::builder();
        ring.setup_single_issuer().setup_defer_taskrun();
        let deferred =
            monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().uring_builder(ring).enable_timer().build();
        let plain = || monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build();
        deferred.or_else(|_| plain()).context("io_uring runtime")?.block_on(serve(listen, mock))
    } else {
        let epoll = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build();
        epoll.context("epoll runtime")?.block_on(serve(listen, mock))
    }
}

async fn serve(listen: SocketAddr, mock: Rc<Mock>) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        mock.counts.borrow_mut().connections += 1;
        let mock = mock.clone();
        monoio::spawn(async move {
            // A client that leaves, or speaks so that the codec refuses it, ends its own connection and nothing else.
            let _ = serve_connection(stream, &mock).await;
        });
    }
}

async fn serve_connection(stream: TcpStream, mock: &Mock) -> Result<()> {
    let (receive, send) = stream.into_split();
    let mut requests = RequestDecoder::new(receive);
    let mut wire = Wire::new(send);
    while let Some(request) = requests.next().await {
        let request: Request = request?;
        requests.fill_payload().await?;
        let (head, body) = request.into_parts();
        let body = body.bytes().await?;

        let Delayed { answer, delay } = match (head.method.as_str(), head.uri.path()) {
            ("GET", "/counts") => Answer::json(200, mock.counts_json()).at_once(),
            (_, path) if !path.starts_with("/mcp") => Answer::empty(404).at_once(),
            ("POST", _) => mock.answers.answer(&head.headers, &body, |method| mock.count(method)),
            ("GET", _) => Answers::stream(&head.headers).at_once(),
            ("DELETE", _) => Answer::empty(200).at_once(),
            _ => Answer::empty(405).at_once(),
        };
        let delay = delay + mock.delay;
        if !delay.is_zero() {
            monoio::time::sleep(delay).await;
        }
        match answer {
            Answer::Whole(response) => wire.send(response).await?,
            Answer::Events(stream) => send_events(&mut wire, &stream).await?,
            // No request follows on this connection: the next thing that is read is its end.
            Answer::Silence => wire.stream_silence().await?,
        }
    }
    Ok(())
}

/// The head leaves at once, each event in a write of its own, and the response with the end of the body.
async fn send_events(wire: &mut Wire, stream: &EventStream) -> Result<()> {
    wire.stream_head().await?;
    for index in 0..stream.events {
        if !stream.pause.is_zero() {
            monoio::time::sleep(stream.pause).await;
        }
        wire.stream_event(&stream.notification(index)).await?;
    }
    wire.stream_end(&stream.response()).await
}

impl Mock {
    fn count(&self, method: &str) {
        let methods = &mut self.counts.borrow_mut().methods;
        match methods.get_mut(method) {
            Some(count) => *count += 1,
            None => drop(methods.insert(method.to_owned(), 1)),
        }
    }

    fn counts_json(&self) -> String {
        let counts = self.counts.borrow();
        serde_json::json!({ "connections": counts.connections, "methods": counts.methods }).to_string()
    }
}
