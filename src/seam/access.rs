//! Lines of the access log on their way from the workers to the thread that writes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

/// The workers' end. What does not fit is lost and counted: no worker waits for a log.
#[derive(Clone, Debug)]
pub struct AccessLines {
    batches: Sender<Box<[u8]>>,
    lost: Arc<AtomicU64>,
}

/// Both ends of a queue of so many batches, each of whole lines.
#[must_use]
pub fn access_lines(batches_max: usize) -> (AccessLines, Receiver<Box<[u8]>>) {
    let (batches, receiver) = bounded(batches_max);
    (AccessLines { batches, lost: Arc::default() }, receiver)
}

impl AccessLines {
    /// Hands over a batch.
    pub fn hand_over(&self, lines: &[u8]) {
        if self.batches.try_send(lines.into()).is_err() {
            self.lose(lines);
        }
    }

    /// Counts lines that will not be written.
    pub fn lose(&self, lines: &[u8]) {
        let count = lines.iter().filter(|byte| **byte == b'\n').count();
        self.lost.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Lines lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_lost_and_counted() {
        let (lines, batches) = access_lines(1);
        lines.hand_over(b"first\nsecond\n");
        lines.hand_over(b"third\nfourth\nfifth\n");
        assert_eq!((batches.try_recv().as_deref(), lines.lost()), (Ok(&b"first\nsecond\n"[..]), 3));
        lines.hand_over(b"sixth\n");
        assert_eq!((batches.try_recv().as_deref(), lines.lost()), (Ok(&b"sixth\n"[..]), 3));
        drop(batches);
        lines.hand_over(b"seventh\n");
        assert_eq!(lines.lost(), 4, "nobody writes any more");
    }
}
