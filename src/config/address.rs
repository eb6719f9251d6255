//! Addresses, URLs, hosts, paths and names: what each may look like.
//!
//! Pure functions of one value. A problem never repeats the value, which may hold what a variable
//! expanded to.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::model::EndpointUrl;
use super::text::{Checked, Problem};

/// The segment of a route's path that names the backend.
pub(super) const CAPTURE: &str = "{backend}";

/// Discovery documents live here, whatever the routes say.
const RESERVED_SEGMENT: &str = ".well-known";

/// With a route `/{backend}` these would stand where discovery and health do.
const RESERVED_NAMES: [&str; 3] = ["well-known", "livez", "readyz"];

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

const HTTP_PORT: u16 = 80;
const NAME_BYTES_MAX: usize = 64;
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// `127.0.0.1:8080` or `[::1]:8080`.
pub(super) fn socket_address(text: &str) -> Checked<SocketAddr> {
    text.parse().map_err(|_| {
        Problem::new("is not an address and a port", "write \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::1]:8080\"")
    })
}

/// An `http` or `https` URL; comes back without slashes at its end.
pub(super) fn public_url(text: &str) -> Checked<String> {
    let url = Url::split(text)?;
    if !["http", "https"].contains(&url.scheme.as_str()) {
        return Err(Problem::new("is neither an http nor an https URL", "write \"https://mcp.example.com\""));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// An origin as browsers write it, `null`, or `*`.
pub(super) fn origin(text: &str) -> Checked<String> {
    if matches!(text, "*" | "null") {
        return Ok(text.to_owned());
    }
    let problem = || Problem::new("is no origin", "write scheme, host and port only: \"https://app.example.com\"");
    let (scheme, authority) = text.split_once("://").ok_or_else(problem)?;
    let is_scheme =
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let (host, _) = split_port(authority).map_err(|_| problem())?;
    if !is_scheme || authority.contains(['/', '?', '#', '@', '*']) || host.is_empty() {
        return Err(problem());
    }
    Ok(text.to_owned())
}

/// A host without port, or `*`.
pub(super) fn allowed_host(text: &str) -> Checked<String> {
    if text == "*" { Ok(text.to_owned()) } else { route_host(text) }
}

/// An `http` URL of a backend.
pub(super) fn endpoint(text: &str) -> Checked<EndpointUrl> {
    let url = Url::split(text)?;
    match url.scheme.as_str() {
        "http" => {}
        "https" => {
            return Err(Problem::new("asks for TLS to a backend, which is not available yet", "use http://"));
        }
        _ => {
            return Err(Problem::new("is not an http URL", "write \"http://host:port/path\""));
        }
    }
    let port = url.port.unwrap_or(HTTP_PORT);
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let authority = if port == HTTP_PORT { host } else { format!("{host}:{port}") };
    Ok(EndpointUrl { host: url.host, port, authority, path: url.path.to_owned() })
}

/// A URL without user, query and fragment.
struct Url<'a> {
    /// Lower case.
    scheme: String,
    /// A name in lower case, or an address without brackets.
    host: String,
    port: Option<u16>,
    /// At least `/`.
    path: &'a str,
}

impl<'a> Url<'a> {
    fn split(text: &'a str) -> Checked<Self> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            Problem::new("is not a URL", "write it in full, for instance \"http://10.0.0.7:9001/mcp\"")
        })?;
        if rest.contains(['?', '#']) {
            return Err(Problem::new("has a query or a fragment", "leave out all from `?` or `#`"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(Problem::new("has a user or a password in its URL", "leave out all up to `@`"));
        }
        let (host, port) = split_port(authority)?;
        let path = if path.is_empty() { "/" } else { path };
        path.split('/').try_for_each(check_segment)?;
        Ok(Self { scheme: scheme.to_ascii_lowercase(), host: host_of(host)?, port, path })
    }
}

fn split_port(authority: &str) -> Checked<(&str, Option<u16>)> {
    // The colons of an IPv6 address stand in brackets, the port's behind them.
    let bracket = authority.rfind(']').unwrap_or(0);
    let Some(colon) = authority[bracket..].find(':').map(|at| bracket + at) else {
        return Ok((authority, None));
    };
    let port = &authority[colon + 1..];
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port @ 1..) if digits => Ok((&authority[..colon], Some(port))),
        _ => Err(Problem::new("has no valid port behind its host", "use 1 to 65535, or leave out the colon")),
    }
}

/// A host name in lower case, or an address without brackets.
fn host_of(text: &str) -> Checked<String> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err(Problem::new("has no IPv6 address between its brackets", "write it as in \"[::1]\"")),
        };
    }
    // A name whose last label is a number is an address to every resolver.
    let name = text.strip_suffix('.').unwrap_or(text);
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let valid = if numeric {
        text.parse::<Ipv4Addr>().is_ok()
    } else {
        name.len() <= HOST_BYTES_MAX && name.split('.').all(is_label)
    };
    if valid {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Problem::new(
        "has no valid host",
        "use a name of letters, digits, `-` and `.`, an IPv4 address, or an IPv6 address in brackets",
    ))
}

/// Underscores are in no host name by the book, but in those of many container networks.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LABEL_BYTES_MAX
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// What a path may hold between two slashes (RFC 3986 section 3.3), without steps up and down.
fn check_segment(segment: &str) -> Checked<()> {
    if segment == "." || segment == ".." {
        return Err(Problem::new("has a `.` or `..` segment in its path", "write the path without it"));
    }
    let mut rest = segment.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = match (first, behind) {
            (b'%', [high, low, behind @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => behind,
            (byte, behind) if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(byte) => behind,
            _ => {
                return Err(Problem::new(
                    "has a character in its path that no path may have",
                    "write other characters as % and two hex digits",
                ));
            }
        };
    }
    Ok(())
}

/// The host of a route, in lower case.
pub(super) fn route_host(text: &str) -> Checked<String> {
    let bracketed = text.starts_with('[');
    if text.contains('/') || split_port(text)?.1.is_some() {
        return Err(Problem::new("is more than a host", "write the host only, without scheme, port and path"));
    }
    if text.contains('*') {
        return Err(Problem::new("has a wildcard, which hosts do not support", "one route for each host, or none"));
    }
    let host = host_of(text)?;
    // As the Host header has it.
    Ok(if bracketed { format!("[{host}]") } else { host })
}

/// `/exact`, `/prefix/*`, or either with one `{backend}` segment.
pub(super) fn path_pattern(text: &str) -> Checked<String> {
    let Some(path) = text.strip_prefix('/') else {
        return Err(Problem::new("does not begin with `/`", "write \"/mcp\", \"/mcp/*\" or \"/mcp/{backend}\""));
    };
    let segments: Vec<&str> = path.split('/').collect();
    if segments[0] == RESERVED_SEGMENT {
        return Err(Problem::new("lies under /.well-known, which Ringway answers itself", "use another path"));
    }
    let last = segments.len() - 1;
    for (index, segment) in segments.iter().enumerate() {
        check_pattern_segment(segment, index == last)?;
    }
    if segments.iter().filter(|segment| **segment == CAPTURE).count() > 1 {
        return Err(Problem::new(format!("has {CAPTURE} more than once"), "keep one of them"));
    }
    Ok(text.to_owned())
}

fn check_pattern_segment(segment: &str, is_last: bool) -> Checked<()> {
    match segment {
        CAPTURE => Ok(()),
        "*" | "" if is_last => Ok(()),
        "" => Err(Problem::new("has an empty segment", "write single slashes")),
        _ if segment.contains('*') => Err(Problem::new(
            "has a `*` that is not its whole last segment",
            "end the path with \"/*\", or write %2A for the character",
        )),
        _ if segment.contains(['{', '}']) => Err(Problem::new(
            format!("has braces other than a whole segment {CAPTURE}"),
            format!("the one capture there is, is \"/{CAPTURE}\""),
        )),
        _ => check_segment(segment),
    }
}

/// A request method.
pub(super) fn method(text: &str) -> Checked<String> {
    if METHODS.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(Problem::new("is not a method that can be routed", format!("use one of {}", METHODS.join(", "))))
}

/// A backend's name, which may become a segment of a path and the label of a metric.
pub(super) fn backend_name(text: &str) -> Checked<()> {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let valid = text.len() <= NAME_BYTES_MAX
        && text.bytes().next().is_some_and(lower)
        && text.bytes().all(|byte| lower(byte) || b"._-".contains(&byte));
    if !valid {
        return Err(Problem::new(
            "is not a name for a backend",
            "use 1 to 64 of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or a digit ([a-z0-9][a-z0-9._-]{0,63})",
        ));
    }
    if RESERVED_NAMES.contains(&text) {
        return Err(Problem::new("is reserved for paths that Ringway answers itself", "choose another name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_are_fine() {
        for (text, host, port, authority, path) in [
            ("http://10.0.0.7:9001/mcp", "10.0.0.7", 9001, "10.0.0.7:9001", "/mcp"),
            ("http://Weather.Example.com", "weather.example.com", 80, "weather.example.com", "/"),
            ("HTTP://weather:80/a%2Fb/", "weather", 80, "weather", "/a%2Fb/"),
            ("http://[0::1]:81/", "::1", 81, "[::1]:81", "/"),
            ("http://[::1]", "::1", 80, "[::1]", "/"),
            ("http://mcp_1.svc.cluster.local./x", "mcp_1.svc.cluster.local.", 80, "mcp_1.svc.cluster.local.", "/x"),
        ] {
            let url = endpoint(text).expect(text);
            assert_eq!((&*url.host, url.port, &*url.authority, &*url.path), (host, port, authority, path), "{text}");
        }
    }

    #[test]
    fn endpoints_that_are_not() {
        for (text, problem) in [
            ("", "is not a URL"),
            ("10.0.0.7:9001", "is not a URL"),
            ("https://a", "TLS"),
            ("ftp://a", "not an http URL"),
            ("http://", "valid host"),
            ("http:///mcp", "valid host"),
            ("http://a:0/", "port"),
            ("http://a:/", "port"),
            ("http://a:+80/", "port"),
            ("http://a:65536/", "port"),
            ("http://a:b:1/", "port"),
            ("http://::1/", "port"),
            ("http://[::1", "port"),
            ("http://[::1]x/", "valid host"),
            ("http://[fe80::1%eth0]/", "IPv6"),
            ("http://10.0.0.300/", "valid host"),
            ("http://1.2.3/", "valid host"),
            ("http://-a/", "valid host"),
            ("http://a..b/", "valid host"),
            ("http://a b/", "valid host"),
            ("http://é/", "valid host"),
            ("http://u:p@a/", "user or a password"),
            ("http://a/?q", "query"),
            ("http://a#f", "query"),
            ("http://a/b c", "character"),
            ("http://a/%4", "character"),
            ("http://a/\r\nHost: b", "character"),
            ("http://a/../b", "segment"),
        ] {
            let found = endpoint(text).expect_err(text).problem;
            assert!(found.contains(problem), "{text}: {found}");
        }
    }

    #[test]
    fn public_urls() {
        assert_eq!(public_url("https://mcp.example.com/").as_deref(), Ok("https://mcp.example.com"));
        assert_eq!(public_url("http://mcp.example.com/a").as_deref(), Ok("http://mcp.example.com/a"));
        assert!(public_url("wss://mcp.example.com").is_err());
        assert!(public_url("mcp.example.com").is_err());
    }

    #[test]
    fn origins_and_allowed_hosts() {
        for text in ["https://app.example.com", "http://localhost:3000", "null", "*", "https://[::1]:8443"] {
            assert_eq!(origin(text).as_deref(), Ok(text));
        }
        for text in ["", "app.example.com", "https://a/", "https://", "https://*.example.com", "https://u@a", "://a"] {
            assert!(origin(text).is_err(), "{text}");
        }
        assert_eq!(allowed_host("*").as_deref(), Ok("*"));
        assert_eq!(allowed_host("A.example").as_deref(), Ok("a.example"));
        assert!(allowed_host("a.example:80").is_err());
    }

    #[test]
    fn path_patterns() {
        for text in ["/", "/*", "/a/b", "/a/", "/a/*", "/{backend}", "/t/{backend}/mcp", "/t/{backend}/*", "/a%2Ab"] {
            assert_eq!(path_pattern(text).as_deref(), Ok(text));
        }
        for (text, problem) in [
            ("", "begin"),
            ("a", "begin"),
            ("/.well-known", "well-known"),
            ("/.well-known/x", "well-known"),
            ("/a//b", "empty segment"),
            ("/a*", "whole last segment"),
            ("/*/b", "whole last segment"),
            ("/{name}", "braces"),
            ("/a{backend}", "braces"),
            ("/{backend}/{backend}", "more than once"),
            ("/a?b", "character"),
            ("/a/../b", "segment"),
        ] {
            let found = path_pattern(text).expect_err(text).problem;
            assert!(found.contains(problem), "{text}: {found}");
        }
    }

    #[test]
    fn route_hosts() {
        for (text, host) in [("MCP.example.com", "mcp.example.com"), ("10.0.0.1", "10.0.0.1"), ("[::1]", "[::1]")] {
            assert_eq!(route_host(text).as_deref(), Ok(host));
        }
        for text in ["", "a:80", "[::1]:80", "http://a", "a/b", "*.example.com", "::1"] {
            assert!(route_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn backend_names() {
        for name in ["a", "0", "weather-v2.eu_1", &"a".repeat(64)] {
            assert_eq!(backend_name(name), Ok(()));
        }
        for name in ["", "A", "-a", ".well-known", "a/b", "a b", "é", "well-known", "livez", &"a".repeat(65)] {
            assert!(backend_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn socket_addresses() {
        assert!(socket_address("[::1]:0").is_ok());
        for text in ["", "localhost:80", ":80", "127.0.0.1", "::1:80"] {
            assert!(socket_address(text).is_err(), "{text}");
        }
    }
}
