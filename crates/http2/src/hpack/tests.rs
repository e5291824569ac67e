//! Header blocks: the examples of RFC 7541, and any bytes.

use proptest::prelude::*;

use super::*;

/// Reads a block. Returns its fields as text, or `None` if it cannot be decoded.
fn read(reader: &mut Reader, block: &[u8]) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    let each = |field: &Field| {
        let name = match &field.name {
            Name::Method => ":method",
            Name::Scheme => ":scheme",
            Name::Authority => ":authority",
            Name::Path => ":path",
            Name::Header(name) => name.as_str(),
            Name::Malformed => "?",
        };
        let value = field.value.to_str().unwrap().to_owned();
        fields.push((name.to_owned(), value));
    };
    reader.read(block, each).ok().map(|()| fields)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(16 * pair[0] + pair[1]).unwrap()).collect()
}

fn texts(fields: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Some(fields.collect())
}

/// RFC 7541, appendices C.3 and C.4: three requests on one connection, plain and with Huffman's code.
#[test]
fn the_requests_of_the_rfc_are_read() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let get = (":method", "GET");
    let authority = (":authority", "www.example.com");
    let expected = [
        texts(&[get, (":scheme", "http"), (":path", "/"), authority]),
        texts(&[
            get,
            (":scheme", "http"),
            (":path", "/"),
            authority,
            ("cache-control", "no-cache"),
        ]),
        texts(&[
            get,
            (":scheme", "https"),
            (":path", "/index.html"),
            authority,
            ("custom-key", "custom-value"),
        ]),
    ];
    for blocks in [plain, huffman] {
        let mut reader = Reader::default();
        for ((block, fields), size) in blocks.iter().zip(&expected).zip([57, 110, 164]) {
            assert_eq!(read(&mut reader, &bytes(block)), *fields);
            assert_eq!(reader.table.size(), size);
        }
    }
}

/// RFC 7541, appendix C.2.
#[test]
fn each_kind_of_literal_is_read() {
    let mut reader = Reader::default();
    let kept = bytes("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
    assert_eq!(read(&mut reader, &kept), texts(&[("custom-key", "custom-header")]));
    assert_eq!(reader.table.size(), 55);
    let without = bytes("040c 2f73 616d 706c 652f 7061 7468");
    assert_eq!(read(&mut reader, &without), texts(&[(":path", "/sample/path")]));
    let never = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
    assert_eq!(read(&mut reader, &never), texts(&[("password", "secret")]));
    assert_eq!(reader.table.size(), 55, "neither is kept");
}

/// The table evicts the oldest fields; a field above its size empties it.
#[test]
fn the_table_keeps_to_its_size() {
    let mut reader = Reader::default();
    let kept = |value: usize| {
        let mut block = vec![0x40, 1, b'a'];
        number_of(&mut block, value);
        block.extend(vec![b'x'; value]);
        block
    };
    for at in 1..=4 {
        read(&mut reader, &kept(967)).unwrap();
        assert_eq!(reader.table.size(), at * 1_000);
    }
    read(&mut reader, &kept(967)).unwrap();
    assert_eq!(reader.table.size(), 4_000, "one was evicted");
    read(&mut reader, &[0x80 | 65]).unwrap();
    assert_eq!(read(&mut reader, &[0x80 | 66]), None, "there is no fifth");
    read(&mut reader, &kept(5_000)).unwrap();
    assert_eq!(reader.table.size(), 0);
    read(&mut reader, &kept(10)).unwrap();
    assert_eq!(read(&mut reader, &[0x20, 0x80 | 62]), None, "a table of 0 bytes is empty");
}

/// Appends the length of a string.
fn number_of(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).unwrap());
        return;
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

#[test]
fn undecodable_blocks_are_refused() {
    for (hex, why) in [
        ("80", "the number 0"),
        ("be", "no such number"),
        ("7e", "a literal whose name has no such number"),
        ("8220", "a new size behind a field"),
        ("3fe21f", "a size of 4,097"),
        ("40", "no name"),
        ("400161", "no value"),
        ("40026100", "a short name"),
        ("00016105", "a short value"),
        ("ffffffffff0f", "a number without end"),
        ("4001618118", "wrong padding"),
    ] {
        assert_eq!(read(&mut Reader::default(), &bytes(hex)), None, "{why}");
    }
    assert_eq!(read(&mut Reader::default(), &bytes("3fe11f82")), texts(&[(":method", "GET")]));
}

/// Only blocks that change the table count as changes.
#[test]
fn changes_of_the_table_are_counted() {
    let mut reader = Reader::default();
    for (hex, changes) in [("82", 0), ("00016100", 0), ("40016100", 1), ("be", 1), ("20", 2)] {
        read(&mut reader, &bytes(hex)).unwrap();
        assert_eq!(reader.changes(), changes, "{hex}");
    }
}

proptest! {
    #[test]
    fn any_block_is_read_or_refused(block in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = Reader::default();
        let mut fields = 0;
        let _ = reader.read(&block, |field| {
            fields += 1;
            assert!(field.size >= 32);
        });
        prop_assert!(fields <= block.len());
        prop_assert!(reader.table.size() <= TABLE_BYTES_MAX);
    }

    #[test]
    fn numbers_are_read_as_they_were_written(
        value in 0..2_000_000_usize,
        prefix in 4..=7_u32,
        first in any::<u8>(),
    ) {
        let mut written = Vec::new();
        let first = first.checked_shl(prefix).unwrap_or(0);
        write::number(&mut written, first, prefix, value);
        let mut rest = &written[..];
        prop_assert_eq!(integer(&mut rest, prefix), Ok(value));
        prop_assert!(rest.is_empty());
    }
}
