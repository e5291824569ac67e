//! The envelope of each record in a file: a version and a checksum over key and value.
//!
//! ```text
//! version: u8 = 1   checksum: u64, little-endian   value
//! ```
//!
//! The checksum is XXH3 (64 bits) of the value, whose seed is XXH3 of the key, whose seed is the version. So a changed
//! byte is found, and a record under the key of another one, too. It guards against faults, not against
//! people: who can write the file can compute it.

use twox_hash::XxHash3_64;

/// The version of records that this program writes, the only one that it reads.
const VERSION: u8 = 1;
/// Bytes before the value.
pub(crate) const ENVELOPE_BYTES: usize = 9;

fn checksum(key: &[u8], value: &[u8]) -> u64 {
    let seed = XxHash3_64::oneshot_with_seed(u64::from(VERSION), key);
    XxHash3_64::oneshot_with_seed(seed, value)
}

/// Writes the record into `record`, in place of what is there.
pub(crate) fn seal(key: &[u8], value: &[u8], record: &mut Vec<u8>) {
    record.clear();
    record.reserve(ENVELOPE_BYTES + value.len());
    record.push(VERSION);
    record.extend(checksum(key, value).to_le_bytes());
    record.extend(value);
}

/// The value of a record.
///
/// # Errors
///
/// What is wrong with the record, to stand behind its key.
pub(crate) fn open<'r>(key: &[u8], record: &'r [u8]) -> Result<&'r [u8], String> {
    let Some((&version, rest)) = record.split_first() else {
        return Err("is empty".to_owned());
    };
    if version != VERSION {
        return Err(format!("has version {version}, this program reads version {VERSION}"));
    }
    match rest.split_first_chunk() {
        Some((sum, value)) if u64::from_le_bytes(*sum) == checksum(key, value) => Ok(value),
        Some(_) => Err("does not match its checksum".to_owned()),
        None => Err("is too short".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any flipped bit, any missing end and any other key is found.
    #[test]
    fn a_changed_record_is_no_value() {
        for value in [&b""[..], b"v", &[7; 300]] {
            let mut record = vec![9; 3];
            seal(b"key", value, &mut record);
            assert_eq!(record.len(), ENVELOPE_BYTES + value.len());
            assert_eq!(open(b"key", &record), Ok(value));
            assert!(open(b"kez", &record).is_err());
            for bit in 0..record.len() * 8 {
                record[bit / 8] ^= 1 << (bit % 8);
                assert!(open(b"key", &record).is_err(), "bit {bit} of {}", value.len());
                record[bit / 8] ^= 1 << (bit % 8);
            }
            for end in 0..record.len() {
                assert!(open(b"key", &record[..end]).is_err());
            }
        }
    }

    /// The encoding is stored, so it must not change.
    #[test]
    fn the_encoding_is_fixed() {
        let mut record = Vec::new();
        seal(b"key", b"value", &mut record);
        assert_eq!(record.escape_ascii().to_string(), GOLDEN);
    }

    /// Computed with the C library of XXH3.
    const GOLDEN: &str = r"\x01:\x99\x8f\x97\xb2\x1ek\x17value";
}
