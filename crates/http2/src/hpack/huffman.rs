//! The Huffman code of header strings (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: sorted by length and then by byte, each code is the one before plus one, moved left
//! where the length grows. So the lengths alone say what every code is.

/// The bits of each byte's code.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
];

const SHORTEST: u32 = 5;
const LONGEST: u32 = 30;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Codes {
    /// The first code beyond them, in the highest bits of 32.
    end: u64,
    /// The first of them.
    first: u32,
    /// The place of the first one's byte in [`SORTED`].
    at: usize,
}

/// The bytes, sorted by the lengths of their codes and then by value.
const SORTED: [u8; 256] = sorted();
const CODES: [Codes; LONGEST as usize + 1] = codes();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn sorted() -> [u8; 256] {
    let (mut all, mut at, mut length) = ([0; 256], 0, SHORTEST);
    while length <= LONGEST {
        let mut byte = 0_u8;
        loop {
            if LENGTHS[byte as usize] as u32 == length {
                all[at] = byte;
                at += 1;
            }
            match byte.checked_add(1) {
                Some(next) => byte = next,
                None => break,
            }
        }
        length += 1;
    }
    all
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn codes() -> [Codes; LONGEST as usize + 1] {
    let mut all = [Codes { end: 0, first: 0, at: 0 }; LONGEST as usize + 1];
    let (mut next, mut at, mut length) = (0_u32, 0, SHORTEST);
    while length <= LONGEST {
        let first = next;
        let begin = at;
        while at < 256 && LENGTHS[SORTED[at] as usize] as u32 == length {
            next += 1;
            at += 1;
        }
        let end = (next as u64) << (32 - length);
        all[length as usize] = Codes { end, first, at: begin };
        next <<= 1;
        length += 1;
    }
    all
}

/// Appends the decoded bytes to `to`. `None` if they are no such code: an unknown code, more than 7 bits of
/// padding, or padding that is not all ones.
pub(crate) fn decode(mut coded: &[u8], to: &mut Vec<u8>) -> Option<()> {
    // The bits that are not decoded stand in the highest `bits` of 64.
    let (mut window, mut bits) = (0_u64, 0_u32);
    loop {
        while bits <= 56
            && let Some((byte, rest)) = coded.split_first()
        {
            window |= u64::from(*byte) << (56 - bits);
            bits += 8;
            coded = rest;
        }
        if bits < SHORTEST {
            break;
        }
        let next = window >> 32;
        let Some((length, codes)) =
            (SHORTEST..).zip(CODES.get(SHORTEST as usize..)?).find(|(_, codes)| next < codes.end)
        else {
            // Ones alone: the padding, which is longer where a code would fit.
            break;
        };
        if length > bits {
            break;
        }
        let code = u32::try_from(next >> (32 - length)).ok()?;
        to.push(*SORTED.get(codes.at + (code - codes.first) as usize)?);
        window <<= length;
        bits -= length;
    }
    let ones = u64::MAX.checked_shl(64 - bits).unwrap_or(0);
    (bits < 8 && coded.is_empty() && window == ones).then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes by the definition, bit by bit.
    fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut text = String::new();
        for byte in bytes {
            let length = u32::from(LENGTHS[usize::from(*byte)]);
            let codes = CODES[length as usize];
            let at = SORTED[codes.at..].iter().position(|other| other == byte).unwrap();
            let code = codes.first + u32::try_from(at).unwrap();
            text.push_str(&format!("{code:0width$b}", width = length as usize));
        }
        while !text.len().is_multiple_of(8) {
            text.push('1');
        }
        let bytes = text.as_bytes().chunks(8);
        bytes
            .map(|bits| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap())
            .collect()
    }

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut to = Vec::new();
        decode(coded, &mut to).map(|()| to)
    }

    /// RFC 7541, appendix C.4.
    #[test]
    fn the_examples_of_the_rfc_are_decoded() {
        let host = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&host).unwrap(), b"www.example.com");
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(decoded(&[]).unwrap(), b"");
    }

    #[test]
    fn wrong_padding_and_the_end_of_string_are_refused() {
        assert_eq!(decoded(&[0xff]), None, "eight bits of padding");
        assert_eq!(decoded(&[0b0001_1000]), None, "padding of zeros");
        assert_eq!(decoded(&[0b0001_1110]), None, "a zero in the padding");
        assert_eq!(decoded(&[0b0001_1111]).unwrap(), b"a");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "the code of the end");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xfc, 0x1f]), None, "it, and a byte");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decoded(&encode(&bytes)), Some(bytes));
        }

        /// A code has one text: what is decoded and encoded again is the same.
        #[test]
        fn what_is_decoded_is_encoded_the_same(coded in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(text) = decoded(&coded) {
                prop_assert_eq!(encode(&text), coded);
            }
        }
    }
}
