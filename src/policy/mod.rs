//! May this caller do this now: verdicts, not answers. So far about where a request says it comes from
//! and whom it means to reach.

mod gate;

pub use gate::{Denial, Gate};
