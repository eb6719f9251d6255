//! Legacy sessions: from the token a client holds to the endpoint that knows it, and back.

use std::sync::Arc;

use super::connection::OpenedSession;
use super::exchange::{Exchange, Way};
use crate::clock;
use crate::config::model::SessionBinding;
use crate::error::ProxyError;
use crate::http::{BodyDecoder, BodyLength, Buffer, SessionField};
use crate::limits;
use crate::mcp::{self, Binding, LOST_SESSION_BYTES_MAX, Session};
use crate::seam::SessionEvent;
use crate::upstream::{Cluster, Endpoint, Lease, UpstreamError};

impl<'a> Exchange<'a> {
    /// Where the request's session lives, if its token is one and this request may use it.
    pub(super) fn find_residence(
        &mut self,
        cluster: &'a Cluster,
        binding: Binding,
    ) -> Result<&'a Arc<Endpoint>, ProxyError> {
        let token = self.heads.request.session_id(self.client.buffer.filled()).unwrap_or_default();
        let generation = self.snapshot.generation;
        let known = |opened: &OpenedSession| opened.generation == generation && opened.token == token;
        if !self.client.session.as_ref().is_some_and(known) {
            let session = self.snapshot.sessions.open(token).ok_or_else(|| self.deny(SessionEvent::RefusedForged))?;
            self.client.session = Some(OpenedSession { generation, token: token.to_vec(), session });
        }
        let opened = self.client.session.as_ref().ok_or(ProxyError::SessionUnknown)?;
        let session = &opened.session;
        let age_max = self.snapshot.session_age_max;
        let too_old = !age_max.is_zero()
            && u64::from(minutes_now().saturating_sub(session.issued_minutes)) * 60 > age_max.as_secs();
        if too_old {
            return Err(self.deny(SessionEvent::RefusedExpired));
        }
        if session.binding != binding {
            return Err(self.deny(SessionEvent::RefusedBinding));
        }
        let found = cluster.by_identity(session.endpoint).ok_or_else(|| self.deny(SessionEvent::RefusedEndpoint))?;
        self.core.count(SessionEvent::Resumed);
        Ok(found)
    }

    /// Why a session cannot be used is for the operator; its client is told the same in each case.
    fn deny(&self, event: SessionEvent) -> ProxyError {
        self.core.count(event);
        ProxyError::SessionUnknown
    }

    /// The session this request belongs to.
    pub(super) fn session(&self, way: &Way<'_>) -> Option<&OpenedSession> {
        self.client.session.as_ref().filter(|_| way.residence.is_some())
    }

    /// What a session of this request is bound to.
    pub(super) fn binding(&self, binding: SessionBinding) -> Binding {
        let credential = || self.heads.request.field(self.client.buffer.filled(), b"authorization").unwrap_or_default();
        match binding {
            SessionBinding::None => Binding::default(),
            SessionBinding::Credential => mcp::binding_of(credential()),
        }
    }

    /// Whether the backend says that it does not know the session of this request, in another way than
    /// with the 404 that its client understands. Counts it either way.
    pub(super) async fn is_lost_session(
        &self,
        way: &Way<'_>,
        lease: &mut Lease,
        buffer: &mut Buffer,
        head_length: usize,
    ) -> Result<bool, ProxyError> {
        let answer = &self.heads.answer;
        if way.residence.is_none() || !(answer.status == 404 || mcp::may_say_session_lost(answer.status)) {
            return Ok(false);
        }
        if answer.status == 404 {
            self.core.count(SessionEvent::RefusedBackend);
            // What is a clean 404 already is the backend's to word.
            return Ok(!answer.is_json(buffer.filled()));
        }
        if answer.is_event_stream(buffer.filled()) {
            return Ok(false);
        }
        let length = answer.body_for(self.heads.request.method);
        if let (200, BodyLength::Fixed(length)) = (answer.status, length) {
            // Nearly every answer. One that is not here as a whole is too long to be a refusal.
            let text = buffer.filled()[head_length..].get(..usize::try_from(length).unwrap_or(usize::MAX));
            return Ok(text.is_some_and(|text| self.lost(200, text)));
        }
        let mut decoder = BodyDecoder::new(length);
        let (mut text, mut at) = (Vec::new(), head_length);
        loop {
            while at < buffer.len() && !decoder.is_done() {
                let (used, run) = decoder.decode(&buffer.filled()[at..]).map_err(UpstreamError::Malformed)?;
                text.extend_from_slice(&buffer.filled()[at..][run]);
                at += used;
            }
            if decoder.is_done() {
                return Ok(self.lost(answer.status, &text));
            }
            // A refusal is short, and a result that is not is none of our business.
            if answer.status == 200 || text.len() > LOST_SESSION_BYTES_MAX || buffer.is_full() {
                return Ok(false);
            }
            let idle = self.core.deadlines.now().after(way.cluster.backend.stream_idle_timeout);
            lease.socket().deadline.set(idle.min(way.due));
            match lease.socket().read(buffer.space()).await {
                // What it broke off in is for the relay to find.
                Ok(0) | Err(_) => return Ok(decoder.end().is_ok() && self.lost(answer.status, &text)),
                Ok(read) => buffer.advance(read),
            }
        }
    }

    fn lost(&self, status: u16, text: &[u8]) -> bool {
        let lost = mcp::says_session_lost(status, text);
        if lost {
            self.core.count(SessionEvent::RefusedBackend);
        }
        lost
    }

    /// The session id that the client is to see in place of the backend's.
    pub(super) fn session_for_client(
        &self,
        way: &Way<'_>,
        lease: &Lease,
        upstream_id: Option<&[u8]>,
    ) -> ClientSession<'_> {
        let Some(upstream_id) = upstream_id else {
            return ClientSession::None;
        };
        if let Some(opened) = self.session(way)
            && opened.session.upstream_id == upstream_id
        {
            return ClientSession::Same(&opened.token);
        }
        // A modern client knows no sessions; one too long to be sealed would end in a broken head.
        if way.modern || upstream_id.len() > limits::SESSION_ID_BYTES_MAX {
            return ClientSession::None;
        }
        self.core.count(SessionEvent::Opened);
        let session = Session {
            endpoint: lease.endpoint().identity,
            issued_minutes: minutes_now(),
            binding: way.binding,
            upstream_id: upstream_id.to_vec(),
        };
        ClientSession::New(self.snapshot.sessions.seal(&session, self.core.nonce()))
    }
}

/// What a client is told of the session its answer belongs to.
pub(super) enum ClientSession<'a> {
    None,
    /// The backend repeats the id, so we repeat its token.
    Same(&'a [u8]),
    New(String),
}

impl ClientSession<'_> {
    pub(super) fn field(&self) -> SessionField<'_> {
        match self {
            Self::None => SessionField::Drop,
            Self::Same(token) => SessionField::Replace(token),
            Self::New(token) => SessionField::Replace(token.as_bytes()),
        }
    }
}

/// Minutes since the Unix epoch.
fn minutes_now() -> u32 {
    u32::try_from(clock::wall().as_secs() / 60).unwrap_or(u32::MAX)
}
