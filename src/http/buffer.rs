//! Byte buffers with room at both ends, kept by each worker for the next use.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use crate::limits;

/// Received bytes between two borders, with room before them for a rewritten head or a chunk's size
/// and behind them for a chunk's end, so that the buffer that was read is the buffer that is written.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// While it is lent out.
    charge: Option<Charge>,
}

impl Buffer {
    /// With room for `capacity` bytes beside head- and tailroom.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let length = limits::BUFFER_HEADROOM_BYTES + capacity + limits::BUFFER_TAILROOM_BYTES;
        let mut buffer = Self { bytes: vec![0; length], start: 0, end: 0, charge: None };
        buffer.clear();
        buffer
    }

    /// Forgets the bytes.
    pub fn clear(&mut self) {
        self.start = limits::BUFFER_HEADROOM_BYTES.min(self.bytes.len());
        self.end = self.start;
    }

    /// Whether no memory is held: a connection that waits.
    #[must_use]
    pub fn is_unallocated(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The received bytes.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where to read more into; empty when full.
    pub fn space(&mut self) -> &mut [u8] {
        let limit = self.bytes.len().saturating_sub(limits::BUFFER_TAILROOM_BYTES);
        &mut self.bytes[self.end..limit.max(self.end)]
    }

    /// Whether [`Buffer::space`] is empty.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.end + limits::BUFFER_TAILROOM_BYTES >= self.bytes.len()
    }

    /// That many bytes were read into [`Buffer::space`].
    pub fn advance(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len());
    }

    /// Drops bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Drops bytes from the back.
    pub fn truncate(&mut self, length: usize) {
        self.end = self.start + length.min(self.len());
    }

    /// Moves the bytes `from` so that they end at `to` (both relative to the filled part): closes
    /// the gaps that chunk framing leaves between runs of payload.
    pub fn move_down(&mut self, from: Range<usize>, to: usize) {
        let base = self.start;
        self.bytes.copy_within(base + from.start..base + from.end, base + to);
    }

    /// Puts `bytes` before the filled part. `false`, and nothing done, if the room is too small.
    #[must_use]
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else {
            return false;
        };
        self.bytes[start..self.start].copy_from_slice(bytes);
        self.start = start;
        true
    }

    /// Puts `bytes` behind the filled part, into the tailroom if need be.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Makes room for `capacity` bytes from the first filled one on, moving to other memory.
    pub fn grow(&mut self, pool: &BufferPool, capacity: usize) {
        let mut larger = pool.take(capacity);
        larger.append(self.filled());
        pool.give(std::mem::replace(self, larger));
    }
}

/// Bytes that a worker's exchanges hold now.
#[derive(Debug, Default)]
pub struct Ledger(Cell<usize>);

impl Ledger {
    /// How many.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.get()
    }

    /// Adds bytes for as long as the charge lives.
    #[must_use]
    pub fn charge(self: &Rc<Self>, bytes: usize) -> Charge {
        self.0.set(self.0.get() + bytes);
        Charge { ledger: Rc::clone(self), bytes }
    }
}

/// An entry of a [`Ledger`].
#[derive(Debug)]
pub struct Charge {
    ledger: Rc<Ledger>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.0.set(self.ledger.0.get() - self.bytes);
    }
}

/// A worker's free buffers, by size, and what is lent out.
#[derive(Debug, Default)]
pub struct BufferPool {
    small: RefCell<Vec<Buffer>>,
    large: RefCell<Vec<Buffer>>,
    /// Of buffers lent out, and of whatever else its holder charges. Free buffers are not counted:
    /// there are [`limits::FREE_BUFFER_BYTES_MAX`] of each size at most.
    pub ledger: Rc<Ledger>,
}

impl BufferPool {
    /// A buffer for heads.
    #[must_use]
    pub fn small(&self) -> Buffer {
        self.take(limits::SMALL_BUFFER_BYTES)
    }

    /// A buffer for bodies.
    #[must_use]
    pub fn large(&self) -> Buffer {
        self.take(limits::LARGE_BUFFER_BYTES)
    }

    fn take(&self, capacity: usize) -> Buffer {
        let mut buffer = match capacity {
            size if size <= limits::SMALL_BUFFER_BYTES => kept(&self.small, limits::SMALL_BUFFER_BYTES),
            size if size <= limits::LARGE_BUFFER_BYTES => kept(&self.large, limits::LARGE_BUFFER_BYTES),
            // Heads larger than that are rare; their buffers are not kept.
            _ => Buffer::with_capacity(capacity),
        };
        buffer.charge = Some(self.ledger.charge(buffer.bytes.len()));
        buffer
    }

    /// Takes a buffer back.
    pub fn give(&self, mut buffer: Buffer) {
        buffer.charge = None;
        let overhead = limits::BUFFER_HEADROOM_BYTES + limits::BUFFER_TAILROOM_BYTES;
        let shelf = match buffer.bytes.len().checked_sub(overhead) {
            Some(limits::SMALL_BUFFER_BYTES) => &self.small,
            Some(limits::LARGE_BUFFER_BYTES) => &self.large,
            _ => return,
        };
        let mut shelf = shelf.borrow_mut();
        if (shelf.len() + 1) * buffer.bytes.len() <= limits::FREE_BUFFER_BYTES_MAX {
            buffer.clear();
            shelf.push(buffer);
        }
    }
}

/// A free buffer of this size, or a new one.
fn kept(shelf: &RefCell<Vec<Buffer>>, size: usize) -> Buffer {
    shelf.borrow_mut().pop().unwrap_or_else(|| Buffer::with_capacity(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_out_is_charged_until_it_is_given_back_or_dropped() {
        let pool = BufferPool::default();
        let (small, large, huge) = (pool.small(), pool.large(), pool.take(1 << 20));
        let all = pool.ledger.bytes();
        assert!(all > limits::SMALL_BUFFER_BYTES + limits::LARGE_BUFFER_BYTES + (1 << 20));
        drop(small);
        pool.give(huge);
        pool.give(large);
        assert_eq!(pool.ledger.bytes(), 0);
        let mut again = pool.large();
        again.grow(&pool, 200_000);
        assert_eq!(pool.ledger.bytes(), again.bytes.len());
        let charge = pool.ledger.charge(7);
        drop(again);
        assert_eq!(pool.ledger.bytes(), 7);
        drop(charge);
        assert_eq!(pool.ledger.bytes(), 0);
    }

    #[test]
    fn what_was_read_is_written_with_framing_around_it() {
        let pool = BufferPool::default();
        let mut buffer = pool.small();
        buffer.space()[..5].copy_from_slice(b"hello");
        buffer.advance(5);
        assert!(buffer.prepend(b"5\r\n"));
        buffer.append(b"\r\n");
        assert_eq!(buffer.filled(), b"5\r\nhello\r\n");
        assert!(!buffer.prepend(&[0; limits::BUFFER_HEADROOM_BYTES]));
        pool.give(buffer);
        assert!(pool.small().is_empty());
    }

    #[test]
    fn a_full_buffer_keeps_its_tailroom() {
        let mut buffer = Buffer::with_capacity(10);
        let space = buffer.space().len();
        assert_eq!(space, 10);
        buffer.advance(space);
        assert!(buffer.is_full() && buffer.space().is_empty());
        buffer.append(&[0; limits::BUFFER_TAILROOM_BYTES]);
    }
}
