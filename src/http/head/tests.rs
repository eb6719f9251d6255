//! A head means the same whichever of the two readers it meets, and whatever was read before it.

use super::*;

const REQUESTS: &[&[u8]] = &[
    b"POST /mcp?a=b HTTP/1.1\r\nHost: a.example:80\r\naccept: a/b, c/d\r\nX-Y:z\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /mcp HTTP/1.0\r\nConnection: X-Y\r\nX-Y: z\r\n\r\n",
    b"DELETE /mcp HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /mcp?a=b HTTP/1.1\r\nHost: a.example:80\r\nAccept:\r\nX-Y: \t z \r\nContent-Length: 2\r\n\r\n{}",
    b"GET /mcp HTTP/1.0\r\n\r\nGET /mcp HTTP/1.0\r\n\r\n",
    b"\r\nGET http://a.example/mcp HTTP/1.1\r\nHost: a.example\r\n\r\n",
];

const ANSWERS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; a=b\r\nX-Y:z\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; a=b\r\nX-Y: \t z \r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.0 204\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 500 \xff\r\nDate:\r\n\r\n",
];

/// Refused, nearly all without a byte that is out of place.
const MEANINGLESS: &[&[u8]] = &[
    b"POST /mcp HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /mcp HTTP/1.0\r\nTransfer-Encoding: chunked\r\nX Y: z\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
    b"POST  HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"POST /mcp HTTP/1.2\r\nHost: a.example\r\n\r\n",
    b"HTTP/1.1 099 OK\r\n\r\n",
    b"HTTP/1.1 600 OK\r\nX Y: z\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nX Y: z\r\n\r\n",
];

const ROOMY: HeadLimits = HeadLimits { head_bytes_max: 1024, target_bytes_max: 256, headers_max: 16 };

/// The verdict on a head and what is known of it, when `first` bytes of it come before the rest.
type Verdict = Result<Option<(usize, String)>, HttpError>;

fn request(bytes: &[u8], limits: &HeadLimits, first: usize) -> Verdict {
    let mut head = RequestHead::default();
    head.decode(&bytes[..first], limits)?;
    let end = head.decode(bytes, limits)?;
    // Where it looked first is no part of what is known.
    head.scan = Scan::default();
    Ok(end.map(|end| (end, format!("{head:?}"))))
}

fn answer(bytes: &[u8], limits: &HeadLimits, first: usize) -> Verdict {
    let mut head = ResponseHead::default();
    head.decode(&bytes[..first], limits)?;
    let end = head.decode(bytes, limits)?;
    // Where it looked first is no part of what is known.
    head.scan = Scan::default();
    Ok(end.map(|end| (end, format!("{head:?}"))))
}

/// What comes in two pieces is scanned line by line.
fn check(verdict: fn(&[u8], &HeadLimits, usize) -> Verdict, bytes: &[u8], limits: &HeadLimits) {
    let (whole, in_pieces) = (verdict(bytes, limits, 0), verdict(bytes, limits, 1));
    assert_eq!(whole, in_pieces, "{limits:?} {}", bytes.escape_ascii());
}

#[test]
fn a_head_is_read_as_if_it_were_the_first() {
    let limits = HeadLimits { headers_max: limits::HEADERS_CEILING, ..ROOMY };
    let many =
        |count: usize| format!("POST /mcp HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1)).into_bytes();
    // One more than there may be, in a place whose number has one byte.
    let crowded = [256, 257].map(many);
    let limits = HeadLimits { head_bytes_max: crowded[1].len(), ..limits };
    let mut used = RequestHead::default();
    for _ in 0..2 {
        for head in REQUESTS.iter().copied().chain(MEANINGLESS.iter().copied()).chain(crowded.iter().map(Vec::as_slice))
        {
            let verdict = used.decode(head, &limits).map(|end| end.map(|end| (end, format!("{used:?}"))));
            used.reset();
            assert_eq!(verdict.map_err(|error| error.to_string()), {
                let mut fresh = RequestHead::default();
                let verdict = fresh.decode(head, &limits);
                verdict.map(|end| end.map(|end| (end, format!("{fresh:?}")))).map_err(|error| error.to_string())
            });
        }
    }
    assert!(request(&crowded[0], &limits, 0).is_ok_and(|end| end.is_some()));
    assert_eq!(request(&crowded[1], &limits, 0), Err(HttpError::TooManyFields));
}

#[test]
fn a_head_that_comes_whole_meets_the_verdict_of_the_scan() {
    let requests = REQUESTS.iter().map(|head| (request as fn(&[u8], &HeadLimits, usize) -> Verdict, *head));
    let answers = ANSWERS.iter().map(|head| (answer as fn(&[u8], &HeadLimits, usize) -> Verdict, *head));
    for head in MEANINGLESS {
        assert!(request(head, &ROOMY, 0).is_err() && answer(head, &ROOMY, 0).is_err());
        check(request, head, &ROOMY);
        check(answer, head, &ROOMY);
    }
    for (verdict, head) in requests.chain(answers) {
        assert!(matches!(verdict(head, &ROOMY, 0), Ok(Some(_))), "{}", head.escape_ascii());
        for place in 0..head.len() {
            check(verdict, &head[..=place], &ROOMY);
            check(verdict, &[&head[..place], &head[place + 1..]].concat(), &ROOMY);
            for byte in *b"\r\n\0 \t:x(\x7f\x80" {
                check(verdict, &[&head[..place], &[byte], &head[place + 1..]].concat(), &ROOMY);
                check(verdict, &[&head[..place], &[byte], &head[place..]].concat(), &ROOMY);
                check(verdict, &[&head[..place], b"\r\n", &[byte], &head[place..]].concat(), &ROOMY);
            }
            check(verdict, head, &HeadLimits { head_bytes_max: place, ..ROOMY });
            check(verdict, head, &HeadLimits { target_bytes_max: place, ..ROOMY });
            check(verdict, head, &HeadLimits { headers_max: place, ..ROOMY });
        }
    }
}
