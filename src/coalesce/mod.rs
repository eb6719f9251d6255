//! One answer for many askers: who shares a flight, and which answers are kept.
//!
//! The tables here hold no socket, no clock and no future: a worker tells them who comes, who goes
//! and what time it is, and passes on what they say. A [`Question`] names what is asked in bytes,
//! compared whole; a [`Scope`] names who asks. An answer goes to askers of its own scope, and to
//! others only if the backend says it is public (2026-07-28, "Caching").
//!
//! Every question has one owner among the workers. Askers of one worker gather in a flight there;
//! its worker asks the owner, at whose flight all workers gather. So a herd on all cores is one
//! exchange, and whoever leads it does so on its own worker, with its own connections.

mod cache;
mod epochs;
mod flight;
mod question;
mod shared;

pub use cache::{Cache, Found};
pub use epochs::{Epochs, Slot};
pub use flight::{Departure, FlightId, Flights, Joined, Member};
pub use question::{Question, QuestionBuilder, Scope};
pub use shared::{Refresh, Shared, Validity};
