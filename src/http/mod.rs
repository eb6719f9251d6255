//! HTTP/1.1 on the wire: bytes to heads and bodies and back, and the sockets they move through.
//!
//! A strict codec of our own on `httparse`: what monoio-http does with hostile bytes (a head of
//! 64 KiB kills the worker, two lengths split a request, an answer that ends with its connection is
//! lost) rules it out on a socket an outsider can reach. Decoders take slices and keep no clock;
//! "need more bytes" is `Ok(None)`. RFC 9110 and 9112; where they leave a choice we refuse.
//! Knows nothing of MCP, routes or configuration; imports only `limits` and `clock`.

mod body;
mod buffer;
mod deadline;
mod encode;
mod error;
mod fields;
mod head;
mod io;
mod outbox;
mod plain;
mod shared;
mod trace;

pub use body::{BodyDecoder, BodyLength, Chunker};
pub use buffer::{Buffer, BufferPool, Charge, Ledger};
pub use deadline::{Deadline, Deadlines};
pub use encode::{
    AcceptField, Forwarded, Framing, Persistence, Rewrite, SessionField, Target, request_fields, request_head,
    request_line, response_head,
};
pub use error::HttpError;
pub use fields::{Field, FieldKind, Span};
pub use head::{HeadLimits, Method, RequestHead, ResponseHead, Version};
pub use io::{Awaiting, Socket, give_way};
pub use outbox::Outbox;
pub use shared::{shared_fields, varies_by_credential};
pub use trace::{Trace, TraceIds, TraceParent};
