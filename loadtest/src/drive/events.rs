//! Finding the events of a stream in the body that has arrived so far.

use memchr::{memchr, memmem};

use super::verdict::{Expected, Wrong, judge};

/// Where the scan of one event stream stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    /// First byte of the body not scanned yet; always the start of a line.
    at: usize,
    /// The data of the event being read, as a range of the body.
    data: Option<(usize, usize)>,
    notifications: u32,
    result: Option<Result<(), Wrong>>,
}

impl Events {
    /// Scans what has arrived; `on_stamp` gets the moment each new notification was sent at.
    pub fn advance(&mut self, body: &[u8], expected: &Expected, mut on_stamp: impl FnMut(u64)) {
        while let Some(length) = memchr(b'\n', &body[self.at..]) {
            let line = body[self.at..self.at + length].trim_ascii_end();
            if let Some(data) = line.strip_prefix(b"data:") {
                self.data = Some((self.at + line.len() - data.len(), self.at + line.len()));
            } else if line.is_empty()
                && let Some((start, end)) = self.data.take()
            {
                self.event(body[start..end].trim_ascii(), expected, &mut on_stamp);
            }
            self.at += length + 1;
        }
    }

    /// The verdict once the body has ended.
    pub fn verdict(&self, expected: u32) -> Result<(), Wrong> {
        self.result.unwrap_or(Err(Wrong::NoResult))?;
        if self.notifications != expected {
            return Err(Wrong::Events(self.notifications));
        }
        Ok(())
    }

    fn event(&mut self, data: &[u8], expected: &Expected, on_stamp: &mut impl FnMut(u64)) {
        if data.is_empty() {
            return; // A priming event carries an id and no message.
        }
        if memmem::find(data, b"\"notifications/progress\"").is_some() {
            // After the result nothing may follow, so a late one does not count.
            self.notifications += self.result.is_none() as u32;
            if let Some(sent_ns) = stamp(data) {
                on_stamp(sent_ns);
            }
        } else {
            self.result = Some(judge(data, expected));
        }
    }
}

fn stamp(data: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"sentNs\":";
    let at = memmem::find(data, KEY)? + KEY.len();
    let digits = data[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |value, digit| value * 10 + (digit - b'0') as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "event: message\ndata: {\"method\":\"notifications/progress\",\"sentNs\":5}\n\n\
        : keep-alive\n\nid: 1\ndata:\n\n\
        data: {\"method\":\"notifications/progress\",\"sentNs\":17}\r\n\r\n\
        data: {\"jsonrpc\":\"2.0\",\"id\":1000000001,\"result\":{\"content\":[{}]}}\n\n";

    const EXPECTED: Expected = Expected { id: *b"1000000001", member: "content", body_bytes_min: 0 };

    #[test]
    fn events_are_counted_wherever_the_stream_is_cut() {
        for cut in 0..STREAM.len() {
            let (mut events, mut stamps) = (Events::default(), Vec::new());
            events.advance(&STREAM.as_bytes()[..cut], &EXPECTED, |stamp| stamps.push(stamp));
            events.advance(STREAM.as_bytes(), &EXPECTED, |stamp| stamps.push(stamp));
            assert_eq!(stamps, [5, 17], "cut at {cut}");
            assert_eq!(events.verdict(2), Ok(()));
            assert_eq!(events.verdict(3), Err(Wrong::Events(2)));
        }
    }

    #[test]
    fn a_stream_without_its_result_is_wrong() {
        let mut events = Events::default();
        events.advance(b"data: {\"method\":\"notifications/progress\"}\n\n", &EXPECTED, |_| {});
        assert_eq!(events.verdict(1), Err(Wrong::NoResult));
    }
}
