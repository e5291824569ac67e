//! Operations as bytes.

use bytes::{Buf as _, Bytes};

use crate::Op;

const PUT: u8 = 1;
const DELETE: u8 = 2;

impl Op {
    /// The key.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// The bytes of key and value.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Put { key, value } => (key.len() as u64).saturating_add(value.len() as u64),
            Self::Delete { key } => key.len() as u64,
        }
    }

    /// Passes on the encoding that [`crate::Head::next`] describes, part by part. It is in digests and in
    /// logs, so it must not change.
    pub(crate) fn encode(&self, to: &mut impl FnMut(&[u8])) {
        let (kind, key, value) = match self {
            Self::Put { key, value } => (PUT, key, Some(value)),
            Self::Delete { key } => (DELETE, key, None),
        };
        to(&[kind]);
        for part in std::iter::once(key).chain(value) {
            to(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            to(part);
        }
    }

    /// Reads what [`Self::encode`] writes, and removes it from the start of `bytes`. `None` if it is something else.
    pub(crate) fn decode(bytes: &mut Bytes) -> Option<Self> {
        let kind = bytes.try_get_u8().ok()?;
        let mut part = || {
            let length = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
            (length <= bytes.len()).then(|| bytes.split_to(length))
        };
        match kind {
            PUT => Some(Self::Put { key: part()?, value: part()? }),
            DELETE => Some(Self::Delete { key: part()? }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory that [`crate::limits::BATCH_OPS_MAX`] names.
    #[test]
    fn an_operation_has_64_bytes() {
        assert_eq!(size_of::<Op>(), 64);
    }

    /// What is read is what was written, and nothing that is cut off or changed makes it panic.
    #[test]
    fn operations_are_read_as_they_were_written() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut any = || Bytes::from_iter((0..random.usize(..9)).map(|_| random.u8(..)));
        for number in 0..200 {
            let op = if number % 3 == 0 {
                Op::Delete { key: any() }
            } else {
                Op::Put { key: any(), value: any() }
            };
            let mut encoded = Vec::new();
            op.encode(&mut |part| encoded.extend_from_slice(part));
            for end in 0..encoded.len() {
                assert_eq!(Op::decode(&mut Bytes::copy_from_slice(&encoded[..end])), None);
            }
            for bit in 0..encoded.len() * 8 {
                let mut changed = encoded.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let _nothing_or_another = Op::decode(&mut changed.into());
            }
            let mut two = Bytes::from(encoded.repeat(2));
            assert_eq!(Op::decode(&mut two).as_ref(), Some(&op));
            assert_eq!(two, encoded);
        }
    }
}
