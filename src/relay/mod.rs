//! Copying a body from one socket to another: as it arrives, with back-pressure, in bounded memory.
//!
//! The buffer that was read is the buffer that is written; only chunk framing around it changes. A
//! body that waits holds no buffer. Decides nothing: it says how the copying ended.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use crate::http::{BodyDecoder, Buffer, Chunker, Framing, HttpError, Socket};

/// Which of two sockets has something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The backend's.
    Upstream,
    /// The client's.
    Downstream,
}

/// Waits until a socket is readable; the client's only if it is given, which is while it is watched.
///
/// # Errors
/// Of the driver.
pub async fn next_readable(upstream: &mut Socket, mut client: Option<&mut Socket>) -> io::Result<Side> {
    poll_fn(|cx| {
        if let Poll::Ready(result) = upstream.poll_readable(cx) {
            return Poll::Ready(result.map(|()| Side::Upstream));
        }
        if let Some(client) = &mut client
            && let Poll::Ready(result) = client.poll_readable(cx)
        {
            return Poll::Ready(result.map(|()| Side::Downstream));
        }
        Poll::Pending
    })
    .await
}

/// Turns the raw bytes of a body in `buffer` into what goes out: payload with the framing `out`.
///
/// # Errors
/// See [`unframe`].
pub fn reframe(buffer: &mut Buffer, decoder: &mut BodyDecoder, out: Framing) -> Result<Vec<u8>, HttpError> {
    let extra = unframe(buffer, decoder)?;
    frame(buffer, out, decoder.is_done());
    Ok(extra)
}

/// Leaves nothing but payload of the raw bytes of a body in `buffer`.
///
/// Bytes behind the body's end are not part of it; they are returned.
///
/// # Errors
/// A fault of the framing that came in.
pub fn unframe(buffer: &mut Buffer, decoder: &mut BodyDecoder) -> Result<Vec<u8>, HttpError> {
    let total = buffer.len();
    let mut at = 0;
    let mut payload = 0..0;
    while at < total && !decoder.is_done() {
        let (used, run) = decoder.decode(&buffer.filled()[at..])?;
        let run = at + run.start..at + run.end;
        at += used;
        if payload.is_empty() {
            payload = run;
        } else if !run.is_empty() {
            // Chunk framing stood between: close the gap, so that one chunk carries all of it.
            let length = run.len();
            buffer.move_down(run, payload.end);
            payload.end += length;
        }
    }
    let extra = buffer.filled()[at..].to_vec();
    buffer.truncate(payload.end);
    buffer.consume(payload.start);
    Ok(extra)
}

/// Puts framing around the payload in `buffer`; `last`: the body ends with it.
pub fn frame(buffer: &mut Buffer, out: Framing, last: bool) {
    if out != Framing::Chunked {
        return;
    }
    if buffer.is_empty() {
        if last {
            buffer.append(Chunker::LAST);
        }
        return;
    }
    // The headroom of a buffer is larger than any size line.
    let fits = buffer.prepend(Chunker::size_line(buffer.len()).as_ref());
    debug_assert!(fits, "no room for a chunk size");
    buffer.append(if last { Chunker::END_AND_LAST } else { Chunker::END });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::BodyLength;

    fn buffer_of(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::with_capacity(bytes.len());
        buffer.space()[..bytes.len()].copy_from_slice(bytes);
        buffer.advance(bytes.len());
        buffer
    }

    fn run(length: BodyLength, input: &[u8], out: Framing, piece: usize) -> (Vec<u8>, Vec<u8>) {
        let mut decoder = BodyDecoder::new(length);
        let (mut written, mut extra) = (Vec::new(), Vec::new());
        for bytes in input.chunks(piece) {
            let mut buffer = buffer_of(bytes);
            extra.extend(reframe(&mut buffer, &mut decoder, out).unwrap());
            written.extend_from_slice(buffer.filled());
        }
        assert!(decoder.is_done());
        (written, extra)
    }

    #[test]
    fn chunks_of_one_read_leave_as_one_chunk() {
        let input = b"3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: v\r\n\r\nNEXT";
        let (written, extra) = run(BodyLength::Chunked, input, Framing::Chunked, input.len());
        assert_eq!(written, b"5\r\nabcde\r\n0\r\n\r\n");
        assert_eq!(extra, b"NEXT");
    }

    #[test]
    fn the_payload_is_the_same_however_it_is_cut_and_framed() {
        let input = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        for piece in 1..=input.len() {
            assert_eq!(run(BodyLength::Chunked, input, Framing::UntilClose, piece).0, b"abcde");
            let (chunked, _) = run(BodyLength::Chunked, input, Framing::Chunked, piece);
            let (payload, _) = run(BodyLength::Chunked, &chunked, Framing::UntilClose, chunked.len());
            assert_eq!(payload, b"abcde", "pieces of {piece}");
        }
        assert_eq!(run(BodyLength::Fixed(5), b"abcdeX", Framing::Length(5), 6), (b"abcde".to_vec(), b"X".to_vec()));
    }
}
