//! Sequences of frames, valid or not, against the properties of [`fuzz::connection`].

#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use capstan_testkit::fuzz;
use proptest::prelude::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let stream = || prop_oneof![8 => (0..10_u32).prop_map(|at| 2 * at + 1), 1 => 0..20_u32];
    let flags = || prop_oneof![2 => Just(0_u8), 4 => Just(1_u8), 4 => Just(4_u8), 4 => Just(5_u8), 1 => any::<u8>()];
    let field = prop_oneof![
        Just(vec![0x40, 1, b'a', 1, b'1']),
        Just(vec![0xbe]),
        Just(vec![0xbf]),
        Just(vec![0x20]),
        Just(vec![0, 1, b'A', 0]),
        Just(vec![0x5c, 1, b'9']),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    let head = (flags(), stream(), prop::collection::vec(field, 0..4)).prop_map(
        |(flags, stream, fields)| {
            frame(1, flags, stream, &[&[0x83, 0x86, 0x84][..], &fields.concat()].concat())
        },
    );
    let payload = prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (0..20_000_usize).prop_map(|length| vec![0; length.min(16_384)]),
        2 => (0..40_000_u32).prop_map(|number| number.to_be_bytes().to_vec()),
        1 => (0..7_u8, 0..100_000_u32).prop_map(|(name, value)| {
            [&[0, name][..], &value.to_be_bytes()].concat()
        }),
        1 => Just(vec![0; 8]),
        1 => Just(b"leaving.".to_vec()),
    ];
    let any_frame = (0..11_u8, flags(), stream(), payload)
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload));
    prop_oneof![8 => head, 12 => any_frame, 1 => prop::collection::vec(any::<u8>(), 1..20)]
}

proptest! {
    /// A long run: `PROPTEST_CASES=1000000 cargo test --release -p capstan-testkit --test connection`.
    #[test]
    fn any_frames_keep_the_rules(how in any::<u8>(), pieces in prop::collection::vec(piece(), 0..40)) {
        let settings = frame(4, 0, 0, &[]);
        fuzz::connection(&[&[how][..], &settings, &pieces.concat()].concat());
    }

    #[test]
    fn any_bytes_keep_the_rules(input in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::connection(&input);
    }
}
