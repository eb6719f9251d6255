//! The Model Context Protocol as far as the proxy looks at it: the envelope of a JSON-RPC message.
//! Does no I/O and knows no HTTP. The only user of sonic-rs.

mod envelope;
mod method;
mod session;

pub use envelope::{error_body, request_id};
pub use method::MethodLabel;
pub use session::{Binding, Session, SessionKeys, binding_of};
