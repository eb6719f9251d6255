//! A fence round one connection: what panics inside ends that connection and nothing else.
//!
//! Without it a panic would unwind out of the event loop and take the worker with it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future whose panics are its result.
pub(super) struct Guarded<F> {
    inner: Option<Pin<Box<F>>>,
}

/// The future panicked; the panic hook has reported it.
#[derive(Debug)]
pub(super) struct Panicked;

impl<F: Future> Guarded<F> {
    pub(super) fn new(future: F) -> Self {
        Self { inner: Some(Box::pin(future)) }
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Err(Panicked));
        };
        // Unwind safe: what the future shares with others are counters and free lists, consistent
        // between any two statements, and its own state is dropped.
        match catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => {
                self.inner = None;
                Poll::Ready(Err(Panicked))
            }
        }
    }
}
