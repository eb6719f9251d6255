//! The thread that writes the access log: whole lines, many with one call, to where it was told last.
//!
//! It alone may wait for a slow disk or reader. Meanwhile the queue from the workers fills up, and
//! what they cannot hand over is lost and counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Stderr, Write, stderr};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, bounded};
use tracing::{error, info};

use crate::config::model;
use crate::limits;
use crate::seam::{AccessLines, access_lines};

/// Not for everybody: clients and what they call stand in it.
const FILE_MODE: u32 = 0o640;

/// Outputs that wait for a writer that is stuck in the one before.
const OUTPUTS_MAX: usize = 4;

/// How long the end of the process waits for the last lines.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// The access log of this process, also while it is off: a reload may switch it on.
#[derive(Debug)]
pub struct AccessLog {
    lines: AccessLines,
    /// Where to write from now on; none: write what is left and end.
    outputs: Sender<Option<Output>>,
    /// Closes when the writer has ended.
    ended: Receiver<()>,
}

/// Where lines go.
pub(super) struct Output {
    to: Box<dyn Write + Send>,
    name: String,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Output").field(&self.name).finish()
    }
}

impl AccessLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not started.
    pub fn start(to: &model::AccessLog) -> io::Result<Self> {
        let output = Output::open(to)?;
        let (lines, batches) = access_lines(limits::ACCESS_BATCHES_MAX);
        let (outputs, new_outputs) = bounded(OUTPUTS_MAX);
        let (end, ended) = bounded(0);
        let writer = Writer { lines: lines.clone(), output, bytes: Vec::new(), failing: false };
        thread::Builder::new().name("ringway-access".into()).spawn(move || {
            writer.run(&batches, &new_outputs);
            drop(end);
        })?;
        Ok(Self { lines, outputs, ended })
    }

    /// The workers' end.
    #[must_use]
    pub fn lines(&self) -> AccessLines {
        self.lines.clone()
    }

    /// Writes to another output from now on.
    pub(super) fn switch(&self, output: Output) {
        if self.outputs.try_send(Some(output)).is_err() {
            error!("the access log is stuck and goes on where it was");
        }
    }

    /// Opens the file anew: it may have been moved away.
    pub(super) fn reopen(&self, to: &model::AccessLog) {
        match Output::open(to) {
            Ok(output) => self.switch(output),
            Err(error) => error!(%error, "the access log goes on in the file that was open"),
        }
    }

    /// Waits a moment for what was handed over to be written.
    pub(super) fn finish(&self) {
        // A writer that is stuck in front of a full queue is not waited for longer either: a reader
        // that does not read must not keep the process.
        let _ = self.outputs.try_send(None);
        // Fails in each case: at once when the writer has ended.
        let _ = self.ended.recv_timeout(FINISH_TIMEOUT);
    }
}

impl Output {
    pub(super) fn open(to: &model::AccessLog) -> io::Result<Self> {
        let name = to.to_string();
        let to: Box<dyn Write + Send> = match to {
            model::AccessLog::Off => Box::new(io::sink()),
            model::AccessLog::Stderr => Box::new(WholeLines(stderr())),
            model::AccessLog::File(path) => Box::new(
                open(path).map_err(|error| io::Error::new(error.kind(), format!("cannot open {name}: {error}")))?,
            ),
        };
        Ok(Self { to, name })
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe that nobody reads yet would hold up whoever opens it for writing only.
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    OpenOptions::new().append(true).create(true).read(is_pipe).mode(FILE_MODE).open(path)
}

/// Holds the lock that the other log takes too, so that neither breaks a line of the other.
struct WholeLines(Stderr);

impl Write for WholeLines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.lock().write_all(lines).map(|()| lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's own state.
struct Writer {
    lines: AccessLines,
    output: Output,
    /// To be written. Between turns: the rest of a line whose beginning was.
    bytes: Vec<u8>,
    /// The last write failed. Said once, and again after a success.
    failing: bool,
}

impl Writer {
    fn run(mut self, batches: &Receiver<Box<[u8]>>, outputs: &Receiver<Option<Output>>) {
        let mut something = Select::new();
        something.recv(batches);
        something.recv(outputs);
        loop {
            something.ready();
            match outputs.try_recv() {
                Ok(Some(output)) => self.switch(output),
                Ok(None) | Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {}
            }
            self.write_some(batches);
        }
        while self.write_some(batches) {}
    }

    fn switch(&mut self, output: Output) {
        self.lines.lose(&self.bytes);
        self.bytes.clear();
        self.failing = false;
        if output.name != self.output.name {
            info!(to = output.name, "access log moved");
        }
        self.output = output;
    }

    /// Writes what waits, up to a size. `false`: nothing did.
    fn write_some(&mut self, batches: &Receiver<Box<[u8]>>) -> bool {
        let rest = self.bytes.len();
        while self.bytes.len() < limits::ACCESS_WRITE_BYTES
            && let Ok(batch) = batches.try_recv()
        {
            self.bytes.extend_from_slice(&batch);
        }
        if self.bytes.len() == rest {
            return false;
        }
        let (written, outcome) = write_whole(&mut *self.output.to, &self.bytes);
        let is_torn = match written {
            0 => rest > 0,
            count => self.bytes[count - 1] != b'\n',
        };
        // The line that was begun ends when writing works again; those behind it are lost.
        let line_end = self.bytes[written..].iter().position(|byte| is_torn && *byte == b'\n');
        let kept = written..line_end.map_or(written, |end| written + end + 1);
        self.lines.lose(&self.bytes[kept.end..]);
        self.bytes.truncate(kept.end);
        self.bytes.drain(..kept.start);
        self.report(outcome);
        true
    }

    fn report(&mut self, outcome: io::Result<()>) {
        let has_failed = std::mem::replace(&mut self.failing, outcome.is_err());
        if let (false, Err(error)) = (has_failed, outcome) {
            error!(to = self.output.name, %error, "cannot write the access log; lines are lost");
        }
    }
}

/// Writes all, or as much as can be: how much, and what was in the way.
fn write_whole(to: &mut dyn Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes so many bytes at each call, an error where it says 0.
    struct Moody {
        takes: Vec<usize>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.takes.remove(0).min(bytes.len());
            self.taken.send(bytes[..count].to_vec()).expect("the test listens");
            if count == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_begun_is_ended_and_others_are_lost_whole() {
        let (taken, pieces) = mpsc::channel();
        let (lines, batches) = access_lines(8);
        let to = Box::new(Moody { takes: vec![5, 3, 0, 0, 100, 0, 100], taken });
        let output = Output { to, name: "moody".into() };
        let mut writer = Writer { lines: lines.clone(), output, bytes: Vec::new(), failing: false };
        let mut write = |batch: &str| {
            lines.hand_over(batch.as_bytes());
            assert!(writer.write_some(&batches));
            lines.lost()
        };
        assert_eq!(write("first\nsecond\nthird\n"), 1, "all but two lines, of which one was begun");
        assert_eq!(write("fourth\n"), 2);
        assert_eq!(write("fifth\n"), 2);
        assert_eq!(write("sixth\nseventh\n"), 4);
        assert_eq!(write("eighth\n"), 4);
        assert!(!writer.write_some(&batches));
        drop(writer);
        assert_eq!(pieces.iter().flatten().collect::<Vec<u8>>(), b"first\nsecond\nfifth\neighth\n");
    }

    #[test]
    fn what_was_handed_over_is_written_before_the_end() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let log = AccessLog::start(&model::AccessLog::File(file.path().to_owned())).expect("opened");
        let lines = log.lines();
        (0..100).for_each(|number| lines.hand_over(format!("{number}\n").as_bytes()));
        log.finish();
        let text = fs::read_to_string(file.path()).expect("written");
        assert_eq!(
            text.lines().map(|line| line.parse().expect("a number")).collect::<Vec<u8>>(),
            (0..100).collect::<Vec<u8>>()
        );
        assert_eq!(lines.lost(), 0);
    }
}
