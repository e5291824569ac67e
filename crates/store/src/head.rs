//! The sentinel that ends each transaction, and the digest that chains transactions.

use sha2::{Digest as _, Sha256};

use crate::Op;

/// Bytes of a digest: SHA-256.
pub const DIGEST_BYTES: usize = 32;
/// A digest of the history up to a transaction.
pub type Digest = [u8; DIGEST_BYTES];

/// Bits of a revision that hold the sequence number; the epoch is above them (contract, section 5).
pub const SEQ_BITS: u32 = 40;
/// The highest epoch, so that JSON holds every revision exactly. The lowest epoch of a store is 1.
pub const EPOCH_MAX: u16 = 8_191;

/// Bytes of an encoded head, see [`Head::to_bytes`].
pub const HEAD_BYTES: usize = 2 + 8 + 4 + 2 * DIGEST_BYTES;

/// What ends a transaction: its place in the sequence, and a digest of everything up to it
/// (`consistency.md`, C.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The epoch of the store, 1 to [`EPOCH_MAX`]. A restore raises it. A store in memory that ends with its process, such as
    /// that of the demo, has epoch 0: its revisions are small numbers, as those of a policy file.
    pub epoch: u16,
    /// The sequence number: 0 for a new store, then one more for each transaction.
    pub seq: u64,
    /// The number of operations of the transaction.
    pub n_ops: u32,
    /// The digest of the transaction and everything before it, see [`Head::next`].
    pub digest: Digest,
    /// The digest of the transaction before it.
    pub prev_digest: Digest,
}

impl Head {
    /// The head of a store without a transaction.
    #[must_use]
    pub const fn empty(epoch: u16) -> Self {
        Self { epoch, seq: 0, n_ops: 0, digest: [0; DIGEST_BYTES], prev_digest: [0; DIGEST_BYTES] }
    }

    /// The revision: the epoch from bit 40 up, the sequence number below.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        ((self.epoch as u64) << SEQ_BITS) | self.seq
    }

    /// The encoding of a head in a store: epoch, sequence number, number of operations, digest, digest before.
    /// Numbers are little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let parts: [&[u8]; 5] = [
            &self.epoch.to_le_bytes(),
            &self.seq.to_le_bytes(),
            &self.n_ops.to_le_bytes(),
            &self.digest,
            &self.prev_digest,
        ];
        let encoded = parts.into_iter().flatten();
        bytes.iter_mut().zip(encoded).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Reads [`Self::to_bytes`]. `None` if the length is another, or the epoch or the sequence number is one that no
    /// store in a file has.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).filter(|head| head.epoch > 0)
    }

    /// The same, also of a store in memory.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (n_ops, rest) = rest.split_first_chunk()?;
        let (digest, prev_digest) = rest.split_first_chunk()?;
        let head = Self {
            epoch: u16::from_le_bytes(*epoch),
            seq: u64::from_le_bytes(*seq),
            n_ops: u32::from_le_bytes(*n_ops),
            digest: *digest,
            prev_digest: prev_digest.try_into().ok()?,
        };
        (head.epoch <= EPOCH_MAX && head.seq < 1 << SEQ_BITS).then_some(head)
    }

    /// The head of a store that is restored from one with this head: the same sequence number and digest, in another epoch.
    /// So its transactions go on where the digests of the restored history end.
    pub(crate) const fn restored(&self, epoch: u16) -> Self {
        Self { epoch, ..*self }
    }

    /// The head after one more transaction with these operations. The digest is SHA-256 of the following
    /// encoding, which must not change, because digests are stored. Numbers are little-endian:
    ///
    /// ```text
    /// digest of the head before: 32 bytes   epoch: u16   seq: u64   n_ops: u32   then of each operation:
    ///   1 for a put, 2 for a delete: u8   bytes of the key: u32, key
    ///   of a put:                         bytes of the value: u32, value
    /// ```
    #[must_use]
    pub fn next(&self, ops: &[Op]) -> Self {
        let n_ops = u32::try_from(ops.len()).unwrap_or(u32::MAX);
        let seq = self.seq.saturating_add(1);
        let mut hash = Sha256::new();
        hash.update(self.digest);
        hash.update(self.epoch.to_le_bytes());
        hash.update(seq.to_le_bytes());
        hash.update(n_ops.to_le_bytes());
        for op in ops {
            op.encode(&mut |part| hash.update(part));
        }
        let digest = hash.finalize().into();
        Self { epoch: self.epoch, seq, n_ops, digest, prev_digest: self.digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = Head {
            epoch: EPOCH_MAX,
            seq: (1 << SEQ_BITS) - 1,
            n_ops: 7,
            digest: [1; DIGEST_BYTES],
            prev_digest: [2; DIGEST_BYTES],
        };
        let bytes = head.to_bytes();
        assert_eq!(Head::from_bytes(&bytes), Some(head));
        assert_eq!(head.revision(), (1 << 53) - 1, "JSON holds the highest revision exactly");
        for end in 0..bytes.len() {
            assert_eq!(Head::from_bytes(&bytes[..end]), None);
        }
        assert_eq!(Head::from_bytes(&[&bytes[..], &[0]].concat()), None);
        for wrong in [
            Head { epoch: 0, ..head },
            Head { epoch: EPOCH_MAX + 1, ..head },
            Head { seq: 1 << SEQ_BITS, ..head },
        ] {
            assert_eq!(Head::from_bytes(&wrong.to_bytes()), None);
        }
    }
}
