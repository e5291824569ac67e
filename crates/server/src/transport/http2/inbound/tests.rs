//! Bodies against a model: the messages of the bytes, however they are divided and whenever they are
//! taken.

use proptest::prelude::*;

use super::*;
use crate::limits::Limits;
use crate::transport::budget::Budget;
use crate::transport::peers::Peer;

const MESSAGE_BYTES_MAX: usize = 40;

/// What a call gets of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Message(Vec<u8>),
    /// Bytes that tonic refuses, and the end.
    Rest(Vec<u8>),
    TooLarge,
    End,
}

/// The messages in the bytes of a whole body.
fn model(mut bytes: &[u8]) -> Vec<Got> {
    let mut all = Vec::new();
    loop {
        let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            if !bytes.is_empty() {
                all.push(Got::Rest(bytes.to_vec()));
            }
            all.push(Got::End);
            return all;
        };
        let [flag, length @ ..] = head;
        let length = u32::from_be_bytes(*length) as usize;
        if *flag > 1 {
            all.extend([Got::Rest(head.to_vec()), Got::End]);
            return all;
        }
        if length > MESSAGE_BYTES_MAX {
            all.push(Got::TooLarge);
            return all;
        }
        if rest.len() < length {
            all.extend([Got::Rest(head[..HEADER_BYTES - 1].to_vec()), Got::End]);
            return all;
        }
        let (message, rest) = bytes.split_at(HEADER_BYTES + length);
        all.push(Got::Message(message.to_vec()));
        bytes = rest;
    }
}

/// Takes one item; `None` if nothing has arrived.
fn take(state: &mut State) -> Option<Got> {
    let is_whole = matches!(state.first(), First::Whole(_));
    let mut message = Vec::new();
    loop {
        match state.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(bytes))) if is_whole => {
                message.extend_from_slice(&bytes);
                if state.message_left == 0 {
                    return Some(Got::Message(message));
                }
            }
            Poll::Ready(Some(Ok(bytes))) => return Some(Got::Rest(bytes.to_vec())),
            Poll::Ready(Some(Err(status))) => {
                assert_eq!(status.code(), tonic::Code::OutOfRange);
                return Some(Got::TooLarge);
            }
            Poll::Ready(None) => return Some(Got::End),
            Poll::Pending => return None,
        }
    }
}

/// Bytes of messages: whole, too large, with a malformed header, or cut off.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let flag = prop_oneof![20 => Just(0_u8), 2 => Just(1), 1 => Just(7)];
    let message = (flag, 0..=MESSAGE_BYTES_MAX + 2).prop_map(|(flag, length)| {
        let head = u32::try_from(length).unwrap().to_be_bytes();
        [&[flag][..], &head, &vec![b'x'; length]].concat()
    });
    (prop::collection::vec(message, 0..8), 0..4_usize).prop_map(|(messages, cut)| {
        let mut bytes = messages.concat();
        if cut == 0 {
            bytes.truncate(bytes.len().saturating_sub(bytes.len() % 7));
        }
        bytes
    })
}

proptest! {
    #[test]
    fn a_call_gets_the_messages_of_its_body(
        bytes in bodies(),
        cuts in prop::collection::vec((1..30_usize, any::<bool>()), 1..40),
    ) {
        let budget = Budget::new(&Limits::default(), &Arc::default());
        let mut state = State::new(MESSAGE_BYTES_MAX, &budget.connection(Peer::of(None)));
        let (mut got, mut rest) = (Vec::new(), &bytes[..]);
        let ends = |got: &[Got]| matches!(got.last(), Some(Got::End | Got::TooLarge));
        for (length, takes) in cuts.iter().cycle() {
            let (chunk, after) = rest.split_at(rest.len().min(*length));
            rest = after;
            state.push(chunk);
            let held = state.chunks.bytes() + state.working;
            let charged = state.charge.bytes();
            prop_assert!((held..=held + SLACK).contains(&charged), "{} held, {} charged", held, charged);
            if *takes && !ends(&got) {
                got.extend(take(&mut state));
            }
            if rest.is_empty() || ends(&got) {
                break;
            }
        }
        state.finish(End::Whole);
        while !ends(&got) {
            got.push(take(&mut state).expect("the body has ended"));
        }
        prop_assert_eq!(got, model(&bytes));
        state.drop_chunks();
        prop_assert_eq!(state.charge.bytes(), 0, "nothing stays charged");
    }
}

#[test]
fn a_body_without_room_is_refused_as_overload() {
    let limits = Limits { connection_held_bytes_max: 10, ..Limits::default() };
    let budget = Budget::new(&limits, &Arc::default()).connection(Peer::of(None));
    let mut state = State::new(MESSAGE_BYTES_MAX, &budget);
    state.push(&[0, 0, 0, 0, 20, 1, 2]);
    state.push(&[3; 4]);
    let Poll::Ready(Some(Err(status))) = state.poll(&Context::from_waker(Waker::noop())) else {
        panic!("no error");
    };
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert_eq!(state.charge.bytes(), 0);
}
