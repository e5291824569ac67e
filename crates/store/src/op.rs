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
