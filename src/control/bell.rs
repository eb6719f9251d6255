//! A descriptor that something outside the control loop rings: a signal handler, another thread.

use std::io;
use std::os::unix::net::UnixStream as StdStream;

use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;

/// Rings taken up by one wake-up at most; the rest wake again.
const RINGS_MAX: usize = 64;

/// The loop's end of a socket pair; each byte that arrives is one ring.
pub(super) struct Bell(UnixStream);

impl Bell {
    /// Takes over the reading end.
    pub(super) fn new(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(stream)?))
    }

    /// Waits until it rings, and says how often it has.
    pub(super) async fn rung(&mut self) -> io::Result<usize> {
        let (read, _) = self.0.read(vec![0; RINGS_MAX]).await;
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            rings => Ok(rings),
        }
    }
}
