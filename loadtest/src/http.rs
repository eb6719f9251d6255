//! One exchange at a time, for what is not measured: counts, readiness, handshakes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::drive::{Reader, Wrong};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A whole answer.
pub struct Answer {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    ask(address, "GET", path)
}

/// A POST without a body.
pub fn post(address: SocketAddr, path: &str) -> Result<Answer> {
    ask(address, "POST", path)
}

fn ask(address: SocketAddr, method: &str, path: &str) -> Result<Answer> {
    let mut socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.write_all(format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
    read_answer(&mut socket)
}

/// Reads one answer to its end.
pub fn read_answer(socket: &mut impl Read) -> Result<Answer> {
    let (mut reader, mut answer, mut piece) = (Reader::default(), Vec::new(), [0; 4096]);
    loop {
        let received = socket.read(&mut piece)?;
        answer.extend_from_slice(&piece[..received]);
        match reader.advance(&mut answer) {
            Ok(true) => break,
            Ok(false) if received > 0 => {}
            Ok(false) => bail!("{}", Wrong::Closed),
            Err(wrong) => bail!("{wrong}"),
        }
    }
    let head = String::from_utf8_lossy(reader.head(&answer)).into_owned();
    Ok(Answer { status: reader.status(), head, body: reader.body(&answer).to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_body_are_told_apart() {
        let mut bytes: &[u8] = b"HTTP/1.1 200 OK\r\nMcp-Session-Id:  a b \r\nContent-Length: 2\r\n\r\n{}";
        let answer = read_answer(&mut bytes).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"{}".as_slice()));
        assert_eq!(answer.header("mcp-session-id"), Some("a b"));
        assert_eq!(answer.header("mcp-session"), None);
        assert!(read_answer(&mut b"HTTP/1.1 200 OK\r\n".as_slice()).is_err());
    }
}
