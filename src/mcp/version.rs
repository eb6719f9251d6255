//! Protocol versions and the two eras they fall into.

/// Which of the two protocols a version speaks (2026-07-28, "Versioning").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// With `initialize` and sessions.
    Legacy,
    /// Each request for itself.
    Modern,
}

impl Era {
    /// By whether it is the modern one.
    #[must_use]
    pub fn of(modern: bool) -> Self {
        if modern { Self::Modern } else { Self::Legacy }
    }
}

/// A published protocol version, in the order of their dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// 2024-11-05: HTTP with SSE, two endpoints.
    V2024_11_05,
    /// 2025-03-26: Streamable HTTP; the only one with batches; sends no version header.
    V2025_03_26,
    /// 2025-06-18: the version header.
    V2025_06_18,
    /// 2025-11-25: tasks, resumable by GET.
    V2025_11_25,
    /// 2026-07-28: stateless, mirrored headers, cache hints.
    V2026_07_28,
    /// Any other text.
    Unknown,
}

impl ProtocolVersion {
    /// Those served over Streamable HTTP, newest first, as an error of an unsupported version lists
    /// them. 2024-11-05 is another transport.
    pub const SERVED: &'static [Self] = &[Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26];

    /// Of those, the ones of one era.
    #[must_use]
    pub fn served(era: Option<Era>) -> &'static [Self] {
        match era {
            None => Self::SERVED,
            Some(Era::Modern) => &Self::SERVED[..1],
            Some(Era::Legacy) => &Self::SERVED[1..],
        }
    }

    /// Of a header's or a member's text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        match text {
            b"2024-11-05" => Self::V2024_11_05,
            b"2025-03-26" => Self::V2025_03_26,
            b"2025-06-18" => Self::V2025_06_18,
            b"2025-11-25" => Self::V2025_11_25,
            b"2026-07-28" => Self::V2026_07_28,
            _ => Self::Unknown,
        }
    }

    /// Its date; a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
            Self::Unknown => "unknown",
        }
    }

    /// Its era; of a text that is no published version, nothing is known.
    #[must_use]
    pub fn era(self) -> Option<Era> {
        match self {
            Self::Unknown => None,
            Self::V2026_07_28 => Some(Era::Modern),
            _ => Some(Era::Legacy),
        }
    }

    /// Whether a body may be an array of messages.
    #[must_use]
    pub fn has_batches(self) -> bool {
        self == Self::V2025_03_26
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ProtocolVersion; 5] = [
        ProtocolVersion::V2024_11_05,
        ProtocolVersion::V2025_03_26,
        ProtocolVersion::V2025_06_18,
        ProtocolVersion::V2025_11_25,
        ProtocolVersion::V2026_07_28,
    ];

    #[test]
    fn their_order_is_that_of_their_texts() {
        for pair in ALL.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].label() < pair[1].label());
        }
        for version in ALL {
            assert_eq!(ProtocolVersion::of(version.label().as_bytes()), version);
        }
    }

    #[test]
    fn other_texts_are_unknown() {
        for text in ["", "2026-07-29", "2026-07-28 ", "DRAFT-2026-v1", "2025-3-26", "unknown"] {
            assert_eq!(ProtocolVersion::of(text.as_bytes()), ProtocolVersion::Unknown);
        }
        assert_eq!(ProtocolVersion::Unknown.era(), None);
    }
}
