//! Orders to the control thread from other threads of this process.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::bell::Bell;
use super::reload::Outcome;

/// Orders that wait. Whoever reloads through a handle waits for the outcome, so a few are many.
const ORDERS_MAX: usize = 64;

/// What others ask of control.
#[derive(Debug)]
pub(super) enum Order {
    /// Reload, and send the outcome.
    Reload(Sender<Outcome>),
    /// Drain and end; the second time: end at once.
    Stop,
    /// Drain and end: a successor serves.
    HandedOver,
}

/// Asks the control thread to act, as signals do; for programs and tests that run the proxy inside.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    orders: Sender<Order>,
    bell: Arc<UnixStream>,
}

/// The control thread's end of a [`ControlHandle`].
#[derive(Debug)]
pub struct Inbox {
    orders: Receiver<Order>,
    bell: UnixStream,
}

/// A handle and the inbox it leads to.
///
/// # Errors
/// When the socket pair cannot be made (descriptors exhausted).
pub fn channel() -> io::Result<(ControlHandle, Inbox)> {
    let (sender, receiver) = bounded(ORDERS_MAX);
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let handle = ControlHandle { orders: sender, bell: Arc::new(ours) };
    Ok((handle, Inbox { orders: receiver, bell: theirs }))
}

impl ControlHandle {
    /// Reloads and blocks until the outcome is known; `None` if control has ended or is swamped.
    #[must_use]
    pub fn reload(&self) -> Option<Outcome> {
        let (sender, receiver) = bounded(1);
        self.order(Order::Reload(sender));
        receiver.recv().ok()
    }

    /// Begins to drain; a second call ends at once.
    pub fn stop(&self) {
        self.order(Order::Stop);
    }

    /// Begins to drain, as a successor serves.
    pub(super) fn handed_over(&self) {
        self.order(Order::HandedOver);
    }

    fn order(&self, order: Order) {
        // An order that is refused is dropped, and with it the sender its giver waits for.
        if self.orders.try_send(order).is_ok() {
            // A full socket buffer means that the bell rings already.
            let _ = (&*self.bell).write(&[1]);
        }
    }
}

/// The inbox on the control loop.
pub(super) struct Orders {
    orders: Receiver<Order>,
    bell: Bell,
}

impl Orders {
    pub(super) fn new(inbox: Inbox) -> io::Result<Self> {
        Ok(Self { orders: inbox.orders, bell: Bell::new(inbox.bell)? })
    }

    /// Waits for the next order; an error means that nobody is left to give one.
    pub(super) async fn next(&mut self) -> io::Result<Order> {
        loop {
            if let Some(order) = self.take() {
                return Ok(order);
            }
            self.bell.rung().await?;
        }
    }

    /// The next order, if one waits.
    pub(super) fn take(&self) -> Option<Order> {
        self.orders.try_recv().ok()
    }
}
