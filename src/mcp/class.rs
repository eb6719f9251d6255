//! Which era a request belongs to, and what it wants there.

use super::{Envelope, Era, Kind, McpError, MethodLabel, ProtocolVersion};

/// The HTTP methods an endpoint may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST
    Post,
    /// GET
    Get,
    /// DELETE
    Delete,
    /// Any other.
    Other,
}

/// What is known of a request when it is classified.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// HTTP method.
    pub verb: Verb,
    /// `MCP-Protocol-Version`
    pub version: Option<&'a [u8]>,
    /// Whether it has `Mcp-Session-Id`.
    pub has_session: bool,
    /// Whether `Accept` has `text/event-stream`.
    pub accepts_events: bool,
    /// The body and what it says, if it was read.
    pub message: Option<(&'a Envelope, &'a [u8])>,
    /// Whether the route serves clients of 2025-03-26, who send no version.
    pub serves_unversioned: bool,
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A message of the modern era, to be checked with [`super::Mirrored::check`] if its body is read.
    Modern,
    /// `initialize` of the legacy era.
    Handshake,
    /// Another message of the legacy era. The version is the header's; without a header 2025-03-26
    /// is assumed, unless the session is known to have another.
    Legacy(ProtocolVersion),
    /// GET: opens or resumes the stream of a legacy session.
    Stream,
    /// GET with neither session nor version: a client of 2024-11-05 that awaits its endpoint, or of
    /// 2025-03-26 at a server without sessions.
    FirstStream,
    /// DELETE: ends a legacy session.
    EndOfSession,
    /// A POST without version and session, which only its body can tell.
    Undecided,
    /// None that can be served.
    Refused(McpError),
}

/// Which era a request belongs to, and what it wants. The specification leaves this to whoever
/// serves both; the order of the questions is what makes every published client's request fall
/// where its sender meant it.
#[must_use]
pub fn classify(evidence: &Evidence<'_>) -> Class {
    let version = evidence.version.map(ProtocolVersion::of);
    let era = version.map(ProtocolVersion::era);
    match (evidence.verb, era) {
        (Verb::Other, _) => Class::Refused(McpError::HttpMethod),
        (_, Some(None)) => Class::Refused(McpError::UnsupportedVersion),
        (Verb::Post, Some(Some(Era::Modern))) => Class::Modern,
        // A modern request has nothing to do with sessions, whatever it carries (P-002).
        (Verb::Get | Verb::Delete, Some(Some(Era::Modern))) => Class::Refused(McpError::HttpMethod),
        (Verb::Delete, _) if evidence.has_session => Class::EndOfSession,
        (Verb::Get, _) if evidence.accepts_events => {
            if evidence.has_session || version.is_some() {
                Class::Stream
            } else {
                Class::FirstStream
            }
        }
        (Verb::Get | Verb::Delete, _) => Class::Refused(McpError::HttpMethod),
        (Verb::Post, _) => classify_legacy_post(evidence, version),
    }
}

/// A POST whose version is absent or legacy.
fn classify_legacy_post(evidence: &Evidence<'_>, version: Option<ProtocolVersion>) -> Class {
    let assumed = version.unwrap_or(ProtocolVersion::V2025_03_26);
    let is_anchored = version.is_some() || evidence.has_session;
    let Some((envelope, body)) = evidence.message else {
        return if is_anchored { Class::Legacy(assumed) } else { Class::Undecided };
    };
    if matches!(envelope.kind, Kind::Batch { .. }) && !assumed.has_batches() {
        return Class::Refused(McpError::Batch);
    }
    if envelope.kind == Kind::Request && envelope.method == MethodLabel::Initialize {
        return Class::Handshake;
    }
    if is_anchored {
        return Class::Legacy(assumed);
    }
    // Modern with its header missing, or a client of a version that has none.
    if envelope.protocol_version(body).is_some() || !evidence.serves_unversioned {
        return Class::Refused(McpError::VersionMissing);
    }
    Class::Legacy(assumed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: &str = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"#,
        r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#
    );

    const POST: Evidence<'_> = Evidence {
        verb: Verb::Post,
        version: None,
        has_session: false,
        accepts_events: true,
        message: None,
        serves_unversioned: true,
    };

    fn class_of(evidence: Evidence<'_>, body: &str) -> Class {
        let envelope = Envelope::parse(body.as_bytes()).expect("a message");
        classify(&Evidence { message: Some((&envelope, body.as_bytes())), ..evidence })
    }

    #[test]
    fn p_096_one_endpoint_serves_both_eras() {
        let old_list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
        let with = |version: &'static [u8]| Evidence { version: Some(version), ..POST };
        assert_eq!(class_of(with(b"2026-07-28"), MODERN), Class::Modern);
        assert_eq!(class_of(with(b"2026-07-28"), initialize), Class::Modern);
        assert_eq!(class_of(POST, initialize), Class::Handshake);
        assert_eq!(class_of(with(b"2025-06-18"), initialize), Class::Handshake);
        assert_eq!(class_of(with(b"2025-06-18"), old_list), Class::Legacy(ProtocolVersion::V2025_06_18));
        assert_eq!(class_of(with(b"2024-11-05"), old_list), Class::Legacy(ProtocolVersion::V2024_11_05));
        let in_session = Evidence { has_session: true, ..POST };
        assert_eq!(class_of(in_session, old_list), Class::Legacy(ProtocolVersion::V2025_03_26));
        assert_eq!(class_of(in_session, MODERN), Class::Legacy(ProtocolVersion::V2025_03_26));
        assert_eq!(classify(&in_session), Class::Legacy(ProtocolVersion::V2025_03_26));
        assert_eq!(classify(&POST), Class::Undecided);
        assert_eq!(classify(&with(b"2026-07-28")), Class::Modern);
    }

    #[test]
    fn p_002_p_090_p_091_versions_and_sessions() {
        let old_list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let refused = Class::Refused;
        // P-091, and P-013 where no such client is served.
        assert_eq!(class_of(POST, old_list), Class::Legacy(ProtocolVersion::V2025_03_26));
        let strict = Evidence { serves_unversioned: false, ..POST };
        assert_eq!(class_of(strict, old_list), refused(McpError::VersionMissing));
        assert_eq!(class_of(POST, MODERN), refused(McpError::VersionMissing));
        // P-090.
        for version in [&b"2027-01-01"[..], b"", b"latest", b"2025-6-18"] {
            for verb in [Verb::Post, Verb::Get, Verb::Delete] {
                let evidence = Evidence { verb, version: Some(version), has_session: true, ..POST };
                assert_eq!(classify(&evidence), refused(McpError::UnsupportedVersion));
            }
        }
        // P-002.
        let modern = Evidence { version: Some(b"2026-07-28"), has_session: true, ..POST };
        assert_eq!(classify(&modern), Class::Modern);
        assert_eq!(classify(&Evidence { verb: Verb::Delete, ..modern }), refused(McpError::HttpMethod));
    }

    #[test]
    fn p_004_arrays_belong_to_one_version() {
        let batch = r#"[{"jsonrpc":"2.0","method":"m"}]"#;
        let with = |version: &'static [u8]| Evidence { version: Some(version), ..POST };
        assert_eq!(class_of(POST, batch), Class::Legacy(ProtocolVersion::V2025_03_26));
        assert_eq!(class_of(with(b"2025-03-26"), batch), Class::Legacy(ProtocolVersion::V2025_03_26));
        for version in [&b"2025-06-18"[..], b"2025-11-25", b"2024-11-05"] {
            assert_eq!(class_of(with(version), batch), Class::Refused(McpError::Batch));
        }
    }

    #[test]
    fn p_001_p_093_get_and_delete() {
        let get = Evidence { verb: Verb::Get, ..POST };
        assert_eq!(classify(&Evidence { has_session: true, ..get }), Class::Stream);
        assert_eq!(classify(&Evidence { version: Some(b"2025-06-18"), ..get }), Class::Stream);
        assert_eq!(classify(&get), Class::FirstStream);
        let refused = Class::Refused(McpError::HttpMethod);
        assert_eq!(classify(&Evidence { accepts_events: false, has_session: true, ..get }), refused);
        assert_eq!(classify(&Evidence { version: Some(b"2026-07-28"), ..get }), refused);
        assert_eq!(classify(&Evidence { verb: Verb::Delete, has_session: true, ..POST }), Class::EndOfSession);
        assert_eq!(classify(&Evidence { verb: Verb::Delete, ..POST }), refused);
        assert_eq!(classify(&Evidence { verb: Verb::Other, ..POST }), refused);
        assert_eq!(McpError::HttpMethod.status(), 405);
    }
}
