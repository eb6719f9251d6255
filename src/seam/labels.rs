//! What is counted and logged by kind: closed sets, each the values of one label.

use crate::error::closed_set;
use crate::mcp;

closed_set! {
    /// `ringway_requests_by_era_total{era}`: what a request was classified as.
    pub enum Era;
    Modern = "modern",
    Legacy = "legacy",
    None = "none",
}

impl From<Option<mcp::Era>> for Era {
    fn from(era: Option<mcp::Era>) -> Self {
        match era {
            Some(mcp::Era::Modern) => Self::Modern,
            Some(mcp::Era::Legacy) => Self::Legacy,
            None => Self::None,
        }
    }
}

closed_set! {
    /// `ringway_coalesced_total{result}`: what a request that may share an answer came to.
    pub enum Coalesced;
    Leader = "leader",
    Follower = "follower",
    Redispatched = "redispatched",
    Alone = "alone",
}

closed_set! {
    /// `ringway_cache_total{result}`: what the cache gave to a request that may be answered from it.
    pub enum Cached;
    Hit = "hit",
    Stale = "stale",
    Miss = "miss",
    Bypass = "bypass",
}

closed_set! {
    /// `ringway_cache_invalidations_total{reason}`: why entries were thrown away before their time.
    pub enum Invalidation;
    Notification = "notification",
    Mismatch = "mismatch",
    UnknownTool = "unknown_tool",
    BadCursor = "bad_cursor",
    Operator = "operator",
}

closed_set! {
    /// `ringway_sessions_total{event}`: what became of a legacy session, or of the attempt to use one.
    pub enum SessionEvent;
    Opened = "opened",
    Resumed = "resumed",
    RefusedForged = "refused_forged",
    RefusedExpired = "refused_expired",
    RefusedBinding = "refused_binding",
    RefusedEndpoint = "refused_endpoint",
    RefusedBackend = "refused_backend",
    Ended = "ended",
}

closed_set! {
    /// `share` in the access log: whether a request's answer came from or went to others too.
    pub enum Share;
    None = "none",
    Leader = "leader",
    Follower = "follower",
    Hit = "hit",
    Stale = "stale",
    Miss = "miss",
    Bypass = "bypass",
}

/// Eras that an endpoint's answers were seen to be of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasSeen {
    modern: bool,
    legacy: bool,
}

impl From<mcp::Era> for ErasSeen {
    fn from(era: mcp::Era) -> Self {
        Self { modern: era == mcp::Era::Modern, legacy: era == mcp::Era::Legacy }
    }
}

impl ErasSeen {
    /// Those of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { modern: self.modern || other.modern, legacy: self.legacy || other.legacy }
    }

    /// `modern`, `legacy` or `both`; nothing if none was seen.
    #[must_use]
    pub fn label(self) -> Option<&'static str> {
        match (self.modern, self.legacy) {
            (true, true) => Some("both"),
            (true, false) => Some("modern"),
            (false, true) => Some("legacy"),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_may_speak_both() {
        let (modern, legacy) = (ErasSeen::from(mcp::Era::Modern), ErasSeen::from(mcp::Era::Legacy));
        assert_eq!(ErasSeen::default().label(), None);
        assert_eq!((modern.label(), legacy.label()), (Some("modern"), Some("legacy")));
        assert_eq!(modern.and(legacy).label(), Some("both"));
        assert_eq!(legacy.and(ErasSeen::default()), legacy);
    }
}
