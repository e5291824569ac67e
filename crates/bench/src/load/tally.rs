//! The counts of a run: latencies, decisions, and errors by name.

use std::collections::BTreeMap;
use std::time::Duration;

use capstan_proto::frame::Header;
use capstan_proto::v1::{BatchCheckResponse, CheckResponse, Reason};
use hdrhistogram::Histogram;
use prost::Message as _;

use super::Mode;
use super::code::{ErrorName, name_of};

/// The counts of the requests whose start time lies in the measured window.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Latencies in nanoseconds. A request without an answer counts with the time that it has waited.
    pub latency: Histogram<u64>,
    /// Requests with an answer.
    pub(crate) answered: u64,
    /// Requests that ended with an error, by its name.
    pub(crate) failed: BTreeMap<ErrorName, u64>,
    /// Requests that were sent and got neither answer nor error.
    pub(crate) unanswered: u64,
    /// Requests of an open loop that were due and not sent, because no slot was free before the end.
    pub(crate) unsent: u64,
    /// The content of the answers.
    pub(crate) answers: AnswerCounts,
    /// Checks answered within the window, whenever their request started. Rates are computed from it.
    pub(crate) completed: u64,
}

/// Checks, by the content of their answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnswerCounts {
    pub(crate) allowed: u64,
    pub(crate) denied: u64,
    /// Checks of a batch whose result is an error.
    pub(crate) errors: BTreeMap<ErrorName, u64>,
    /// Answers that are not a decision: undecodable, without a reason, or with a reason that
    /// contradicts `allowed`.
    pub(crate) malformed: u64,
    /// Decisions that differ from the expected one, where one is known.
    pub(crate) wrong: u64,
}

/// An answer, decoded as far as the slot has decoded it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer<'a> {
    /// An encoded message.
    Message(&'a [u8]),
    /// A decision: `allowed`, and the reason.
    Decision(bool, Reason),
    /// Bytes that cannot be an answer.
    Malformed,
}

/// The longest latency that the histogram distinguishes.
const LATENCY_MAX: Duration = Duration::from_secs(600);

impl Tally {
    /// # Errors
    ///
    /// The histogram's parameters are invalid.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            // Three significant digits: values are exact to 0.1 %.
            latency: Histogram::new_with_max(nanos(LATENCY_MAX), 3)?,
            answered: 0,
            failed: BTreeMap::new(),
            unanswered: 0,
            unsent: 0,
            answers: AnswerCounts::default(),
            completed: 0,
        })
    }

    /// Records the latency of a request.
    pub(crate) fn record(&mut self, time: Duration) {
        self.latency.saturating_record(nanos(time));
    }

    pub(crate) fn fail(&mut self, error: ErrorName) {
        *self.failed.entry(error).or_default() += 1;
    }

    /// Requests whose start time lies in the window, however they ended.
    pub(crate) fn requests(&self) -> u64 {
        self.answered + self.failed.values().sum::<u64>() + self.unanswered + self.unsent
    }

    /// Adds the counts of another tally.
    pub(crate) fn add(&mut self, other: &Self) {
        // Fails only if the other histogram has a larger range; all have the same.
        let _ = self.latency.add(&other.latency);
        self.answered += other.answered;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        self.completed += other.completed;
        add_all(&mut self.failed, &other.failed);
        self.answers.add(&other.answers);
    }
}

impl AnswerCounts {
    /// Counts the answer to one request. `expected` has the expected decision of each of its checks.
    pub(crate) fn read(
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
                        Some(error) => *self.errors.entry(name_of(error.code)).or_default() += 1,
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

fn add_all(to: &mut BTreeMap<ErrorName, u64>, from: &BTreeMap<ErrorName, u64>) {
    for (error, count) in from {
        *to.entry(error).or_default() += count;
    }
}

/// The message of a body that holds exactly one frame, not compressed; `None` for any other body.
pub(crate) fn single_message(body: &[u8]) -> Option<&[u8]> {
    let (header, message) = Header::read(body)?;
    (!header.compressed && header.length == message.len()).then_some(message)
}

#[cfg(test)]
mod tests {
    use capstan_proto::v1::{CheckResult, ItemError};

    use super::super::code::TRANSPORT;
    use super::*;

    fn result(allowed: bool, reason: Reason) -> CheckResult {
        CheckResult { allowed, reason: reason.into(), ..CheckResult::default() }
    }

    #[test]
    fn decisions_errors_and_malformed_answers_are_counted_apart() {
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
        let mut answers = AnswerCounts::default();
        answers.read(Mode::Batch, Answer::Message(&message), expected.into_iter());
        let errors = BTreeMap::from([("INVALID_ARGUMENT", 1)]);
        let all = AnswerCounts { allowed: 1, denied: 2, errors, malformed: 3, wrong: 1 };
        assert_eq!(answers, all);

        // An answer with another number of results is malformed as a whole.
        let mut answers = AnswerCounts::default();
        answers.read(Mode::Stream, Answer::Message(&message), [None; 5].into_iter());
        assert_eq!(answers, AnswerCounts { malformed: 5, ..AnswerCounts::default() });
        answers.read(Mode::Check, Answer::Message(b"\xff"), [None].into_iter());
        assert_eq!(answers.malformed, 6);
        answers.read(Mode::Check, Answer::Message(b""), [None].into_iter());
        assert_eq!(answers.malformed, 7);

        // Decisions of the client follow the same rules.
        let mut answers = AnswerCounts::default();
        for (answer, expected) in [
            (Answer::Decision(true, Reason::Granted), Some(true)),
            (Answer::Decision(false, Reason::NoBinding), Some(true)),
            (Answer::Decision(false, Reason::Unspecified), None),
            (Answer::Malformed, None),
        ] {
            answers.read(Mode::Coalesced, answer, [expected].into_iter());
        }
        let all = AnswerCounts {
            allowed: 1,
            denied: 1,
            malformed: 2,
            wrong: 1,
            ..AnswerCounts::default()
        };
        assert_eq!(answers, all);
    }

    #[test]
    fn one_message_is_taken_out_of_its_frame() {
        assert_eq!(single_message(b"\0\0\0\0\x02ab"), Some(&b"ab"[..]));
        assert_eq!(single_message(b"\0\0\0\0\0"), Some(&b""[..]));
        for other in [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\x02ab", b"\0\0\0\0\x02a", b"\0\0\0\0\0a"]
        {
            assert_eq!(single_message(other), None, "{other:?}");
        }
    }

    #[test]
    fn tallies_add_up() {
        let mut one = Tally { answered: 2, completed: 5, unsent: 1, ..Tally::new().unwrap() };
        one.fail("UNAVAILABLE");
        one.record(Duration::from_micros(7));
        let mut sum = one.clone();
        sum.fail(TRANSPORT);
        sum.add(&one);
        assert_eq!((sum.requests(), sum.completed, sum.latency.len()), (9, 10, 2));
        assert_eq!(sum.failed, BTreeMap::from([(TRANSPORT, 1), ("UNAVAILABLE", 2)]));
    }
}
