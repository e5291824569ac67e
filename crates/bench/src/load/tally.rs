//! What came of the requests: latencies, answers, and errors by code.

use std::collections::BTreeMap;
use std::time::Duration;

use capstan_proto::v1::{BatchCheckResponse, CheckResponse, Reason};
use hdrhistogram::Histogram;
use prost::Message as _;

use super::Mode;
use capstan_server::telemetry::metrics::CODES;

/// The name of an error: that of a gRPC code, or [`TRANSPORT`].
pub type Code = &'static str;
/// No gRPC status came: the connection broke, or could not be made.
pub const TRANSPORT: Code = "TRANSPORT";
/// Bytes before a message: whether it is compressed, and how long it is.
pub const PREFIX_BYTES: usize = 5;

/// What came of the requests whose time was in the window.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Nanoseconds. A request that was never answered counts with how long it waited.
    pub latency: Histogram<u64>,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that ended with an error.
    pub failed: BTreeMap<Code, u64>,
    /// Requests that were sent and never answered.
    pub unanswered: u64,
    /// Requests of an open loop that there was no place for before the end.
    pub unsent: u64,
    /// What the answers say.
    pub answers: Answers,
    /// Checks answered while the clock ran, whenever they were asked: what rates are of.
    pub completed: u64,
}

/// Checks, by what was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub allowed: u64,
    pub denied: u64,
    /// Items of batches that could not be answered.
    pub errors: BTreeMap<Code, u64>,
    /// Answers that are no decision: undecodable, without a reason, or with one that contradicts.
    pub malformed: u64,
    /// Decisions that are not the engine's in this process, if those were asked for.
    pub wrong: u64,
}

/// An answer, as far as whoever asked has read it.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// A message, still encoded.
    Message(&'a [u8]),
    /// A decision: whether it is allowed, and why.
    Decision(bool, Reason),
    /// Nothing that could be an answer.
    Malformed,
}

/// Longest wait that is told from a longer one.
const WAIT_MAX: Duration = Duration::from_secs(600);

impl Tally {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            // Within a thousandth of the true value.
            latency: Histogram::new_with_max(nanos(WAIT_MAX), 3)?,
            answered: 0,
            failed: BTreeMap::new(),
            unanswered: 0,
            unsent: 0,
            answers: Answers::default(),
            completed: 0,
        })
    }

    pub fn waited(&mut self, time: Duration) {
        self.latency.saturating_record(nanos(time));
    }

    pub fn fail(&mut self, code: Code) {
        *self.failed.entry(code).or_default() += 1;
    }

    /// Requests whose time was in the window, whatever came of them.
    pub fn requests(&self) -> u64 {
        self.answered + self.failed.values().sum::<u64>() + self.unanswered + self.unsent
    }

    pub fn add(&mut self, other: &Self) {
        // Fails only if the other one is larger, and all are of one size.
        let _ = self.latency.add(&other.latency);
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.completed += other.completed;
        add_all(&mut self.failed, &other.failed);
        self.answers.add(&other.answers);
    }
}

impl Answers {
    /// Reads the answer to one request, of which each check was expected to be answered so.
    pub fn read(
        &mut self,
        mode: Mode,
        answer: Answer<'_>,
        mut expected: impl ExactSizeIterator<Item = Option<bool>>,
    ) {
        let asked = expected.len() as u64;
        let message = match answer {
            Answer::Message(message) => message,
            Answer::Decision(allowed, reason) => {
                return self.decide(allowed, reason, expected.next().flatten());
            }
            Answer::Malformed => return self.malformed += asked,
        };
        if mode == Mode::Check {
            match CheckResponse::decode(message) {
                Ok(answer) => {
                    self.decide(answer.allowed, answer.reason(), expected.next().flatten());
                }
                Err(_) => self.malformed += asked,
            }
            return;
        }
        match BatchCheckResponse::decode(message) {
            Ok(answer) if answer.results.len() as u64 == asked => {
                for (result, expected) in answer.results.iter().zip(expected) {
                    match &result.error {
                        Some(error) => *self.errors.entry(code(error.code)).or_default() += 1,
                        None => self.decide(result.allowed, result.reason(), expected),
                    }
                }
            }
            Ok(_) | Err(_) => self.malformed += asked,
        }
    }

    fn decide(&mut self, allowed: bool, reason: Reason, expected: Option<bool>) {
        if reason == Reason::Unspecified || allowed != (reason == Reason::Granted) {
            self.malformed += 1;
            return;
        }
        if allowed {
            self.allowed += 1;
        } else {
            self.denied += 1;
        }
        self.wrong += u64::from(expected.is_some_and(|expected| expected != allowed));
    }

    fn add(&mut self, other: &Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.malformed += other.malformed;
        self.wrong += other.wrong;
        add_all(&mut self.errors, &other.errors);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn add_all(to: &mut BTreeMap<Code, u64>, from: &BTreeMap<Code, u64>) {
    for (code, count) in from {
        *to.entry(code).or_default() += count;
    }
}

/// The name of a gRPC code.
pub fn code(number: i32) -> Code {
    usize::try_from(number).ok().and_then(|at| CODES.get(at)).copied().unwrap_or("UNKNOWN")
}

/// The message of an answer that holds just one.
pub fn unframed(framed: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = framed.split_first_chunk::<PREFIX_BYTES>()?;
    (framed_len(prefix) == Some(message.len())).then_some(message)
}

/// How long the message after this prefix is; nothing if it is compressed, which nobody asked for.
pub fn framed_len(prefix: &[u8; PREFIX_BYTES]) -> Option<usize> {
    let [0, length @ ..] = *prefix else {
        return None;
    };
    usize::try_from(u32::from_be_bytes(length)).ok()
}

#[cfg(test)]
mod tests {
    use capstan_proto::v1::{CheckResult, ItemError};

    use super::*;

    fn result(allowed: bool, reason: Reason) -> CheckResult {
        CheckResult { allowed, reason: reason.into(), ..CheckResult::default() }
    }

    #[test]
    fn answers_are_told_from_errors_and_from_nonsense() {
        let error = ItemError { code: 3, ..ItemError::default() };
        let results = vec![
            result(true, Reason::Granted),
            result(false, Reason::NoBinding),
            result(false, Reason::NoBinding),
            result(false, Reason::Granted),
            result(true, Reason::Expired),
            CheckResult::default(),
            CheckResult { error: Some(error), ..CheckResult::default() },
        ];
        let expected = [Some(true), None, Some(true), None, None, None, None];
        let message = BatchCheckResponse { results, revision: 1 }.encode_to_vec();
        let mut answers = Answers::default();
        answers.read(Mode::Batch, Answer::Message(&message), expected.into_iter());
        let errors = BTreeMap::from([("INVALID_ARGUMENT", 1)]);
        let all = Answers { allowed: 1, denied: 2, errors, malformed: 3, wrong: 1 };
        assert_eq!(answers, all);

        // An answer to another number of questions answers none.
        let mut answers = Answers::default();
        answers.read(Mode::Stream, Answer::Message(&message), [None; 5].into_iter());
        assert_eq!(answers, Answers { malformed: 5, ..Answers::default() });
        answers.read(Mode::Check, Answer::Message(b"\xff"), [None].into_iter());
        assert_eq!(answers.malformed, 6);
        answers.read(Mode::Check, Answer::Message(b""), [None].into_iter());
        assert_eq!(answers.malformed, 7);

        // What the client has read is held against the same rules.
        let mut answers = Answers::default();
        for (answer, expected) in [
            (Answer::Decision(true, Reason::Granted), Some(true)),
            (Answer::Decision(false, Reason::NoBinding), Some(true)),
            (Answer::Decision(false, Reason::Unspecified), None),
            (Answer::Malformed, None),
        ] {
            answers.read(Mode::Coalesced, answer, [expected].into_iter());
        }
        let all = Answers { allowed: 1, denied: 1, malformed: 2, wrong: 1, ..Answers::default() };
        assert_eq!(answers, all);
    }

    #[test]
    fn one_message_is_taken_out_of_its_frame() {
        assert_eq!(unframed(b"\0\0\0\0\x02ab"), Some(&b"ab"[..]));
        assert_eq!(unframed(b"\0\0\0\0\0"), Some(&b""[..]));
        for other in [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\x02ab", b"\0\0\0\0\x02a", b"\0\0\0\0\0a"]
        {
            assert_eq!(unframed(other), None, "{other:?}");
        }
    }

    #[test]
    fn tallies_add_up() {
        let mut one = Tally { answered: 2, completed: 5, unsent: 1, ..Tally::new().unwrap() };
        one.fail("UNAVAILABLE");
        one.waited(Duration::from_micros(7));
        let mut sum = one.clone();
        sum.fail(TRANSPORT);
        sum.add(&one);
        assert_eq!((sum.requests(), sum.completed, sum.latency.len()), (9, 10, 2));
        assert_eq!(sum.failed, BTreeMap::from([(TRANSPORT, 1), ("UNAVAILABLE", 2)]));
    }
}
