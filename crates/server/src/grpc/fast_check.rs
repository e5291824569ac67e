//! The fast way: plain checks are answered by the task of their connection, without tonic.
//!
//! A check is plain if its message is not compressed and has only identity, capability and resource.
//! The three strings are borrowed from the message. A call that is traced, and every call of a
//! server with a decision log, takes the usual way.
//!
//! **Invariant**: any other call, and any call that gets an error, goes to the generated service. So
//! both ways give the same responses, limits and errors.

use std::sync::Arc;

use capstan_engine::{Attributes, Path};
use capstan_proto::contract::ENCODING_KEY;
use capstan_proto::frame::{Header, append};
use capstan_proto::plain::names;
use tonic::codegen::http::Method;
use tonic::codegen::http::request::Parts;

use super::convert;
use crate::ask::{Ask, Basis};
use crate::askers::{Askers, Asking};
use crate::clock::Clock;
use crate::feed::Published;
use crate::methods::Rpc;

/// Answers plain checks.
#[derive(Debug)]
pub(crate) struct FastCheck {
    pub(crate) published: Arc<Published>,
    pub(crate) ask: Ask,
    pub(crate) askers: Askers,
    pub(crate) clock: Clock,
    pub(crate) message_bytes_max: usize,
}

impl FastCheck {
    /// Whether a call may be a plain check, by its head.
    pub(crate) fn takes(&self, rpc: Rpc, head: &Parts) -> bool {
        // Logged checks take the usual way, which copies their names anyway.
        rpc == Rpc::CHECK
            && head.method == Method::POST
            && !self.ask.logs()
            && !head.headers.keys().any(|name| name == ENCODING_KEY)
    }

    /// Appends the framed response to a body, if it is one plain check, the answer needs no wait, and it is known without a wait that
    /// it may be asked.
    pub(crate) fn answer(&self, asking: Asking<'_>, body: &[u8], to: &mut Vec<u8>) -> Option<()> {
        self.askers.plain(asking, |within| self.answer_within(within, body, to))
    }

    /// Whether it is known without a wait that whoever asks may check.
    pub(crate) fn lets_in(&self, asking: Asking<'_>) -> bool {
        self.askers.plain(asking, |_| Some(())).is_some()
    }

    fn answer_within(&self, within: Option<Path<'_>>, body: &[u8], to: &mut Vec<u8>) -> Option<()> {
        let (header, message) = Header::read(body)?;
        let whole = Header { compressed: false, length: message.len() };
        if header != whole || message.len() > self.message_bytes_max {
            return None;
        }
        let current = self.published.load();
        let snapshot = &current.as_deref()?.snapshot;
        let basis = Basis { within, ..Basis::new(Rpc::CHECK, snapshot, self.clock.now()) };
        // An error takes the usual way.
        let decision = self.ask.check(basis, names(message)?, Attributes::NONE).ok()?;
        append(to, &convert::check_response(decision, snapshot.revision()));
        Some(())
    }
}
