//! The Model Context Protocol as far as the proxy looks at it: the JSON-RPC envelope of a message,
//! the headers that mirror it, versions and eras, replies that are shared, the events of a stream.
//!
//! Everything here takes slices and gives ranges and verdicts: no I/O, no clock, no HTTP.
//! Specification: modelcontextprotocol.io, 2024-11-05 to 2026-07-28; P-numbers are those of
//! `docs/conformance.md`.

mod class;
mod envelope;
mod error;
mod headers;
mod json;
mod listen;
mod lost;
mod method;
mod reply;
mod session;
mod sse;
mod version;

#[cfg(test)]
pub(crate) mod random;

pub use class::{Class, Evidence, Verb, classify};
pub use envelope::{Envelope, Kind, request_id, same_id};
pub use error::{HEADER_MISMATCH, INVALID_PARAMS, McpError, error_body, unsupported_version_body};
pub use headers::{Mirrored, Role, decode_sentinel, encode_sentinel};
pub use json::Span;
pub use listen::listen_end;
pub use lost::{LOST_SESSION_BYTES_MAX, may_say_session_lost, says_session_lost};
pub use method::{MethodLabel, NameField};
pub use reply::{CacheScope, Outcome, Reply, may_have_ttl, negotiated_version};
pub use session::{Binding, RandomSecret, Session, SessionKeys, binding_of};
pub use sse::{Boundaries, Event, EventReader};
pub use version::{Era, ProtocolVersion};
