//! A batch as it came: what it asks is borrowed from its bytes, if it asks in the plain way, as most
//! do; else it is decoded.

use capstan_engine::{Attributes, Snapshot, Timestamp};
use capstan_proto::codec::EncodedBatch;
use capstan_proto::v1;
use tonic::Status;

use crate::direct::{length, names};
use crate::{RequestError, answer};

/// What a batch asks.
#[derive(Debug)]
pub(crate) enum Batch<'r> {
    /// Identity, capability and resource of each check, and nothing else.
    Plain(Vec<[&'r str; 3]>),
    Decoded(v1::BatchCheckRequest),
}

impl<'r> Batch<'r> {
    /// # Errors
    ///
    /// The bytes are of no batch: INVALID_ARGUMENT, with the field that is wrong.
    pub(crate) fn of(encoded: &'r EncodedBatch) -> Result<Self, Status> {
        match checks(encoded.bytes()) {
            Some(checks) => Ok(Self::Plain(checks)),
            None => encoded.decode().map(Self::Decoded),
        }
    }

    /// How many checks there are.
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Plain(checks) => checks.len(),
            Self::Decoded(request) => request.checks.len(),
        }
    }

    pub(crate) const fn consistency(&self) -> Option<&v1::Consistency> {
        match self {
            Self::Plain(_) => None,
            Self::Decoded(request) => request.consistency.as_ref(),
        }
    }

    /// # Errors
    ///
    /// As [`answer::batch_check`].
    pub(crate) fn answer(
        &self,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<v1::BatchCheckResponse, RequestError> {
        match self {
            Self::Plain(checks) => {
                let checks = checks.iter().map(|names| (*names, Attributes::NONE));
                answer::batch_check_names(snapshot, checks, now)
            }
            Self::Decoded(request) => answer::batch_check(snapshot, request, now),
        }
    }

    /// Identity, capability and resource of each check.
    pub(crate) fn into_names(self) -> Vec<[String; 3]> {
        match self {
            Self::Plain(checks) => checks.into_iter().map(|names| names.map(Into::into)).collect(),
            Self::Decoded(request) => {
                let names = |item: v1::CheckItem| [item.identity, item.capability, item.resource];
                request.checks.into_iter().map(names).collect()
            }
        }
    }
}

/// The [`names`] of each check of an encoded `BatchCheckRequest` that has nothing but checks, and
/// those nothing but names, each at most once. Nothing if there is more, or the bytes are none.
#[must_use]
pub fn checks(mut message: &[u8]) -> Option<Vec<[&str; 3]>> {
    /// Field 1, of bytes.
    const CHECKS: u8 = 0x0a;
    // A check takes some bytes: there are no more of them than this, and room is not given for what
    // is only claimed.
    let mut checks = Vec::with_capacity(message.len() / 64);
    while let Some((key, rest)) = message.split_first() {
        if *key != CHECKS {
            return None;
        }
        let (length, rest) = length(rest)?;
        let (check, rest) = rest.split_at_checked(length)?;
        checks.push(names(check)?);
        message = rest;
    }
    Some(checks)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn item(identity: &str, capability: &str, resource: &str) -> v1::CheckItem {
        let [identity, capability, resource] = [identity, capability, resource].map(Into::into);
        v1::CheckItem { identity, capability, resource, properties: None }
    }

    #[test]
    fn names_are_borrowed_as_prost_decodes_them() {
        let long = "x".repeat(5_000);
        for all in [
            vec![],
            vec![["", "", ""]],
            vec![["a", "b.c", "d/e"], ["", "", "r"], ["a", "b.c", "d/e"]],
            vec![[&*long, "c", &*long], ["i", "", ""]],
        ] {
            let items = all
                .iter()
                .map(|[identity, capability, resource]| item(identity, capability, resource));
            let request = v1::BatchCheckRequest { checks: items.collect(), consistency: None };
            assert_eq!(checks(&request.encode_to_vec()), Some(all));
        }
    }

    #[test]
    fn whatever_is_not_plain_is_decoded() {
        let mut supplied = item("i", "c", "r");
        supplied.properties = Some(v1::Properties::default());
        let with_properties = v1::BatchCheckRequest { checks: vec![supplied], consistency: None };
        let consistent = v1::BatchCheckRequest {
            checks: vec![item("i", "c", "r")],
            consistency: Some(v1::Consistency::default()),
        };
        for bytes in [
            &with_properties.encode_to_vec()[..],
            &consistent.encode_to_vec(),
            b"\x0a",                     // no length
            b"\x0a\x05\x0a\x01i",        // too short
            b"\x0a\x03\x0a\x02i",        // its name too short
            b"\x0a\x04\x0a\x02\xc3\x28", // not UTF-8
            b"\x08\x01",                 // not bytes
            b"\x1a\x00",                 // another field
        ] {
            assert_eq!(checks(bytes), None, "{bytes:?}");
        }
    }
}
