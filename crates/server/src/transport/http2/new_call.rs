//! Calls that have arrived and have not started. The task of the connection reads the first bytes of their
//! bodies.

use std::sync::Arc;

use capstan_http2::Head;
use capstan_proto::contract::ENCODING_KEY;
use tokio::time::Instant;
use tonic::codegen::http::{Extensions, Request};

use super::chunks::Chunks;
use super::{Intake, Kind};
use crate::limits::{SHORT_BODY_MAX, SHORT_WAIT_MAX};

/// A call that has neither started nor ended.
pub(super) struct NewCall {
    pub(super) stream: u32,
    pub(super) head: Arc<Head>,
    /// What was drawn for the call, beside its head.
    pub(super) extensions: Extensions,
    /// The bytes so far.
    pub(super) body: Chunks,
    /// Whether the body is complete.
    pub(super) is_whole: bool,
    pub(super) intake: Intake,
    pub(super) since: Instant,
}

impl NewCall {
    /// Whether the call starts now, although it is not answered as a plain one. While the connection `rests`, nobody is late: the body may have
    /// come.
    pub(super) fn starts(&self, now: Instant, rests: bool) -> bool {
        self.is_whole
            || self.intake.kind == Kind::Stream
            || self.body.bytes() > SHORT_BODY_MAX
            || !rests && now.duration_since(self.since) >= SHORT_WAIT_MAX
    }

    /// The request, with this body.
    pub(super) fn request<B>(self, body: B) -> Request<B> {
        let mut head = self.head.parts.clone();
        if self.intake.inflates {
            head.headers.remove(ENCODING_KEY);
        }
        head.extensions = self.extensions;
        Request::from_parts(head, body)
    }
}
