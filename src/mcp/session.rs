//! Sealed sessions: the `Mcp-Session-Id` a legacy client holds is a token of ours that says where
//! the session lives, so that any worker, and any replica with the same key, finds it from the
//! token alone. No table, no store, nothing to lose in a restart.
//!
//! ```text
//! token = base64url( version 1 | key id 4 | nonce 24 | sealed | tag 16 )
//! sealed = endpoint 8 | issued 4 | binding 16 | the backend's own session id
//! ```
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): its nonce is long enough to be drawn at random by
//! replicas that know nothing of each other. Version and key id are authenticated with the rest.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

use crate::limits::SESSION_ID_BYTES_MAX;

const VERSION: u8 = 1;
const KEY_ID: usize = 4;
const NONCE: usize = 24;
const TAG: usize = 16;
const PREFIX: usize = 1 + KEY_ID + NONCE;
const FIXED: usize = 8 + 4 + 16;

/// Longest token that can be ours.
const TOKEN_BYTES_MAX: usize = (PREFIX + FIXED + SESSION_ID_BYTES_MAX + TAG).div_ceil(3) * 4;

/// Digest of the credential a session is bound to; all zero: bound to none.
pub type Binding = [u8; 16];

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Identity of the endpoint that holds the session.
    pub endpoint: u64,
    /// When it was opened, in minutes since the Unix epoch.
    pub issued_minutes: u32,
    /// What it is bound to.
    pub binding: Binding,
    /// The backend's own id.
    pub upstream_id: Vec<u8>,
}

/// Keys that open tokens; the first also seals.
#[derive(Clone)]
pub struct SessionKeys {
    keys: Vec<Key>,
    /// Kept for a successor, if nobody else has it.
    random: Option<RandomSecret>,
}

/// A secret from the system's random number generator.
pub type RandomSecret = [u8; 32];

#[derive(Clone)]
struct Key {
    id: [u8; KEY_ID],
    cipher: XChaCha20Poly1305,
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKeys").field("keys", &self.keys.len()).finish()
    }
}

impl SessionKeys {
    /// Keys derived from secrets of any length; at least one.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let keys: Vec<Key> = secrets.into_iter().map(Key::derive).collect();
        debug_assert!(!keys.is_empty(), "sealing needs a key");
        Self { keys, random: None }
    }

    /// A key that nobody else has.
    ///
    /// # Panics
    /// When the system gives no random bytes: there is nothing to serve sessions with then.
    #[must_use]
    pub fn random() -> Self {
        let mut secret = RandomSecret::default();
        getrandom::fill(&mut secret).expect("the system's random number generator works");
        Self::of_random(secret)
    }

    /// The keys that another process drew with [`SessionKeys::random`].
    #[must_use]
    pub fn of_random(secret: RandomSecret) -> Self {
        Self { random: Some(secret), ..Self::new([secret.as_slice()]) }
    }

    /// What [`SessionKeys::of_random`] makes the same keys of; `None` for configured ones.
    #[must_use]
    pub fn random_secret(&self) -> Option<RandomSecret> {
        self.random
    }

    /// Whether they came from [`SessionKeys::random`].
    #[must_use]
    pub fn are_random(&self) -> bool {
        self.random.is_some()
    }

    /// The token for a session. A nonce must never be given twice with one key.
    #[must_use]
    pub fn seal(&self, session: &Session, nonce: [u8; NONCE]) -> String {
        let key = &self.keys[0];
        let mut sealed = Vec::with_capacity(FIXED + session.upstream_id.len() + TAG);
        sealed.extend_from_slice(&session.endpoint.to_be_bytes());
        sealed.extend_from_slice(&session.issued_minutes.to_be_bytes());
        sealed.extend_from_slice(&session.binding);
        sealed.extend_from_slice(&session.upstream_id);
        let mut token = Vec::with_capacity(PREFIX + sealed.len() + TAG);
        token.push(VERSION);
        token.extend_from_slice(&key.id);
        let payload = Payload { msg: &sealed, aad: &token };
        // Fails only for messages of gigabytes.
        let sealed = key.cipher.encrypt(XNonce::from_slice(&nonce), payload).unwrap_or_default();
        token.extend_from_slice(&nonce);
        token.extend_from_slice(&sealed);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// What a token says, if one of the keys sealed it and nobody has changed it.
    #[must_use]
    pub fn open(&self, token: &[u8]) -> Option<Session> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (prefix, sealed) = token.split_at_checked(PREFIX)?;
        let (authenticated, nonce) = prefix.split_at(1 + KEY_ID);
        if authenticated[0] != VERSION {
            return None;
        }
        let key = self.keys.iter().find(|key| key.id == authenticated[1..])?;
        let payload = Payload { msg: sealed, aad: authenticated };
        let plain = key.cipher.decrypt(XNonce::from_slice(nonce), payload).ok()?;
        let (endpoint, rest) = plain.split_first_chunk::<8>()?;
        let (issued, rest) = rest.split_first_chunk::<4>()?;
        let (binding, upstream_id) = rest.split_first_chunk::<16>()?;
        Some(Session {
            endpoint: u64::from_be_bytes(*endpoint),
            issued_minutes: u32::from_be_bytes(*issued),
            binding: *binding,
            upstream_id: upstream_id.to_vec(),
        })
    }
}

impl Key {
    fn derive(secret: &[u8]) -> Self {
        let key = Sha256::new().chain_update(b"ringway session key 1\0").chain_update(secret).finalize();
        let id = Sha256::new().chain_update(b"ringway session key id 1\0").chain_update(key).finalize();
        let mut short = [0; KEY_ID];
        short.copy_from_slice(&id[..KEY_ID]);
        Self { id: short, cipher: XChaCha20Poly1305::new(&key) }
    }
}

/// The digest of a credential, never all zero.
#[must_use]
pub fn binding_of(credential: &[u8]) -> Binding {
    let digest = Sha256::new().chain_update(b"ringway binding 1\0").chain_update(credential).finalize();
    let mut binding = Binding::default();
    binding.copy_from_slice(&digest[..16]);
    binding[0] |= 1;
    binding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session { endpoint: 7, issued_minutes: 9, binding: binding_of(b"Bearer a"), upstream_id: b"abc-1".to_vec() }
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_no_other() {
        let keys = SessionKeys::new([b"one".as_slice()]);
        let token = keys.seal(&session(), [3; NONCE]);
        assert!(token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "{token}");
        assert_eq!(keys.open(token.as_bytes()), Some(session()));
        assert_eq!(SessionKeys::new([b"two".as_slice()]).open(token.as_bytes()), None);
    }

    #[test]
    fn random_keys_can_be_handed_on() {
        let keys = SessionKeys::random();
        let token = keys.seal(&session(), [3; NONCE]);
        let heir = SessionKeys::of_random(keys.random_secret().expect("random"));
        assert_eq!(heir.open(token.as_bytes()), Some(session()));
        assert!(heir.are_random());
        assert_eq!(SessionKeys::new([b"one".as_slice()]).random_secret(), None);
    }

    #[test]
    fn keys_rotate() {
        let old = SessionKeys::new([b"old".as_slice()]);
        let both = SessionKeys::new([b"new".as_slice(), b"old"]);
        let new = SessionKeys::new([b"new".as_slice()]);
        let token = old.seal(&session(), [1; NONCE]);
        assert_eq!(both.open(token.as_bytes()), Some(session()));
        let token = both.seal(&session(), [2; NONCE]);
        assert_eq!(new.open(token.as_bytes()), Some(session()));
        assert_eq!(old.open(token.as_bytes()), None);
    }

    #[test]
    fn any_change_closes_it() {
        let keys = SessionKeys::new([b"one".as_slice()]);
        let token = keys.seal(&session(), [3; NONCE]).into_bytes();
        for at in 0..token.len() {
            for with in [b'A', b'b', b'-', b'=', b' ', 0xff] {
                let mut forged = token.clone();
                if forged[at] == with {
                    continue;
                }
                forged[at] = with;
                assert_eq!(keys.open(&forged), None, "byte {at}");
            }
            assert_eq!(keys.open(&token[..at]), None);
        }
        assert_eq!(keys.open(&vec![b'A'; 100_000]), None);
        assert_eq!(keys.open(b"b85bc45f5230049a37718adfa468a644"), None);
    }

    #[test]
    fn a_binding_is_never_taken_for_none() {
        assert_ne!(binding_of(b""), Binding::default());
        assert_ne!(binding_of(b"a"), binding_of(b"b"));
    }
}
