//! `traceparent` and `tracestate` (W3C Trace Context, level 1): what came, and what goes on.

use super::RequestHead;

/// Text of a `traceparent` of version 00: `00-{trace id}-{parent id}-{flags}`.
const TEXT_BYTES: usize = 55;

/// The flags that have a meaning: sampled, and since level 2 random. Others are to be sent as zero.
const FLAGS_KNOWN: u8 = 0b11;

/// A valid `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Names the whole trace; not all zero.
    pub trace_id: [u8; 16],
    /// Names the span that sends; not all zero.
    pub parent_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

impl TraceParent {
    /// Reads a header's value. Of a version after 00 only what 00 has is read, as the specification
    /// asks. `None`: invalid, and so the trace begins anew.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(TEXT_BYTES)?;
        let [version] = hex(&known[..2])?;
        let has_dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let is_whole = if version == 0 { rest.is_empty() } else { matches!(rest, [] | [b'-', ..]) };
        if version == 0xff || !has_dashes || !is_whole {
            return None;
        }
        let trace_id = hex(&known[3..35]).filter(|id| *id != [0; 16])?;
        let parent_id = hex(&known[36..52]).filter(|id| *id != [0; 8])?;
        let [flags] = hex(&known[53..])?;
        Some(Self { trace_id, parent_id, flags })
    }

    /// The header's value, in version 00.
    #[must_use]
    pub fn text(&self) -> [u8; TEXT_BYTES] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&hex_text::<16, 32>(&self.trace_id));
        text[36..52].copy_from_slice(&hex_text::<8, 16>(&self.parent_id));
        text[53..].copy_from_slice(&hex_text::<1, 2>(&[self.flags & FLAGS_KNOWN]));
        text
    }

    /// The trace's id in hex.
    #[must_use]
    pub fn trace_id_text(&self) -> [u8; 32] {
        hex_text(&self.trace_id)
    }
}

/// What becomes of the trace headers of a request that is sent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace {
    /// Both pass as they came.
    #[default]
    Pass,
    /// This `traceparent` in the place of the one that came, whose trace it continues; `tracestate`
    /// passes.
    Continue(TraceParent),
    /// This `traceparent`; what came, if anything, is dropped with its `tracestate`.
    Begin(TraceParent),
}

impl Trace {
    /// With a span of our own: in the trace that the request belongs to, or in a new one.
    #[must_use]
    pub fn create(head: &RequestHead, buffer: &[u8], ids: &mut TraceIds) -> Self {
        match head.traceparent(buffer) {
            Some(came) => Self::Continue(TraceParent { parent_id: ids.draw(), ..came }),
            None => Self::Begin(TraceParent { trace_id: ids.draw(), parent_id: ids.draw(), flags: 0 }),
        }
    }

    /// What is sent in place of what came.
    #[must_use]
    pub fn parent(&self) -> Option<&TraceParent> {
        match self {
            Self::Pass => None,
            Self::Continue(parent) | Self::Begin(parent) => Some(parent),
        }
    }
}

/// Random ids: xoshiro256++ (Blackman and Vigna, 2019). Ids must not repeat, in no worker and no
/// replica, and need not be secret.
#[derive(Clone, Debug)]
pub struct TraceIds([u64; 4]);

impl TraceIds {
    /// From random bytes, different in every worker.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(seed.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        // All zero is the one state that stays.
        state[0] |= u64::from(state == [0; 4]);
        Self(state)
    }

    /// An id that is not all zero, `N` a multiple of 8.
    fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut id = [0; N];
        while id == [0; N] {
            id.as_chunks_mut().0.iter_mut().for_each(|word| *word = self.next().to_le_bytes());
        }
        id
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let drawn = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }
}

/// Bytes out of lower-case hex digits, two a byte; upper case is invalid here.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    debug_assert_eq!(text.len(), 2 * N);
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(text.as_chunks().0) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// `M` is twice `N`.
fn hex_text<const N: usize, const M: usize>(bytes: &[u8; N]) -> [u8; M] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    const { assert!(M == 2 * N) };
    std::array::from_fn(|at| {
        let byte = bytes[at / 2];
        DIGITS[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 0xf })]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own example.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn p_045_what_is_valid_is_read_and_written_alike() {
        let parsed = TraceParent::parse(EXAMPLE.as_bytes()).expect("valid");
        assert_eq!(parsed.trace_id[..3], [0x4b, 0xf9, 0x2f]);
        assert_eq!((parsed.parent_id[7], parsed.flags), (0xb7, 1));
        assert_eq!(parsed.text(), EXAMPLE.as_bytes());
        assert_eq!(parsed.trace_id_text(), EXAMPLE.as_bytes()[3..35]);
    }

    #[test]
    fn p_045_later_versions_are_read_as_far_as_they_are_known() {
        let later = |text: &str| TraceParent::parse(text.as_bytes()).map(|parent| parent.text());
        for end in ["", "-", "-what the future will bring"] {
            let text = format!("{}{end}", EXAMPLE.replacen("00", "cc", 1));
            assert_eq!(later(&text), Some(EXAMPLE.as_bytes().try_into().unwrap()), "{text}");
        }
        assert_eq!(later(&EXAMPLE.replacen("00", "cc", 1).replace("-01", "-01x")), None);
        let flags = EXAMPLE.replace("b7-01", "b7-ff");
        assert_eq!(later(&flags).unwrap(), EXAMPLE.replace("b7-01", "b7-03").as_bytes(), "flags without a meaning");
    }

    #[test]
    fn p_045_what_is_invalid_is_none() {
        let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for text in [
            "".to_owned(),
            "00".to_owned(),
            EXAMPLE[..54].to_owned(),
            format!("{EXAMPLE}-"),
            format!("{EXAMPLE}0"),
            format!("{EXAMPLE} "),
            EXAMPLE.replacen("00", "ff", 1),
            EXAMPLE.replacen("00", "0G", 1),
            EXAMPLE.replace(trace_id, &trace_id.to_uppercase()),
            EXAMPLE.replace(trace_id, &"0".repeat(32)),
            EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            EXAMPLE.replace("00f067aa0ba902b7", "00f067aa0ba902bx"),
            EXAMPLE.replace("-01", "_01"),
            EXAMPLE.replace("-01", "-0é").chars().take(54).collect(),
            format!("{EXAMPLE},{EXAMPLE}"),
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn ids_differ_and_are_not_zero() {
        // The generator's own reference output for the state 1, 2, 3, 4.
        let mut seed = [0; 32];
        (1..=4).for_each(|word| seed[8 * (word - 1)] = word as u8);
        let mut ids = TraceIds::new(seed);
        assert_eq!([ids.next(), ids.next(), ids.next()], [41_943_041, 58_720_359, 3_588_806_011_781_223]);
        let mut ids = TraceIds::new([0; 32]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let id: [u8; 16] = ids.draw();
            assert!(id != [0; 16] && seen.insert(id));
        }
    }
}
