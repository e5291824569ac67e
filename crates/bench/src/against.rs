//! A server and the yardstick, measured in alternating runs, so that noise of the machine affects both
//! alike.

use std::sync::Arc;

use indicatif::ProgressBar;
use serde::Serialize;

use crate::load::{MeasuredServer, Measurement, Plan, run};
use crate::questions::Questions;

/// The wanted confidence of the intervals.
const CONFIDENCE: f64 = 0.95;

/// Two runs, one directly after the other.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The run of the server.
    pub(crate) server: Measurement,
    /// The run of the yardstick.
    pub(crate) yardstick: Measurement,
}

impl Pair {
    /// The server's CPU time per check divided by the yardstick's; `None` if one is unknown or zero.
    pub(crate) fn cpu_ratio(&self) -> Option<f64> {
        let cpu = |one: &Measurement| one.micros_a_check(one.server_cpu);
        Some(cpu(&self.server)? / cpu(&self.yardstick)?).filter(|ratio| ratio.is_finite())
    }

    /// The server's checks per second divided by the yardstick's; `None` if the latter is zero.
    pub(crate) fn rate_ratio(&self) -> Option<f64> {
        Some(self.server.rate() / self.yardstick.rate()).filter(|ratio| ratio.is_finite())
    }
}

/// Runs `count` pairs. In every second pair the yardstick runs first.
///
/// # Errors
///
/// As [`run`].
pub async fn pairs(
    count: usize,
    plan: &Plan,
    (server, yardstick): (&MeasuredServer, &MeasuredServer),
    questions: &Arc<Questions>,
    line: &ProgressBar,
) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for at in 0..count {
        let measure = async |measured, name| {
            line.set_prefix(format!("pair {} of {count}, {name:<9}  ", at + 1));
            run(plan, measured, questions, line).await
        };
        let pair = if at % 2 == 0 {
            let server = measure(server, "server").await?;
            Pair { server, yardstick: measure(yardstick, "yardstick").await? }
        } else {
            let yardstick = measure(yardstick, "yardstick").await?;
            Pair { server: measure(server, "server").await?, yardstick }
        };
        pairs.push(pair);
    }
    Ok(pairs)
}

/// A sample median with a confidence interval, by the sign test: order statistics alone, with no
/// assumption about the distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Median {
    /// The median of the sample.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// The confidence of the interval, from 0 to 1: at least 0.95 from six values on.
    pub confidence: f64,
}

impl Median {
    /// `None` without values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let at = |at: usize| values.get(at).copied();
        let count = values.len();
        let median = (at(count / 2)? + at(count.checked_sub(1)? / 2)?) / 2.0;
        // The number of values below the true median is binomial with probability 1/2.
        let each = 0.5_f64.powi(i32::try_from(count).ok()?);
        let (mut outside, mut chance, mut cut) = (each, each, 0);
        for below in 1..count / 2 {
            chance *= number(count + 1 - below) / number(below);
            if 1.0 - 2.0 * (outside + chance) < CONFIDENCE {
                break;
            }
            (outside, cut) = (outside + chance, below);
        }
        let (low, high) = (at(cut)?, at(count - 1 - cut)?);
        Some(Self { median, low, high, confidence: (1.0 - 2.0 * outside).max(0.0) })
    }
}

/// A number of runs as a float.
fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u32>) -> Median {
        Median::of(values.into_iter().map(f64::from).collect()).unwrap()
    }

    /// Published tables of the sign test give the 6th and the 15th of 20 values.
    #[test]
    fn the_interval_is_that_of_the_sign_test() {
        let twenty = of((1..=20).rev());
        assert_eq!((twenty.median, twenty.low, twenty.high), (10.5, 6.0, 15.0));
        assert!((twenty.confidence - 0.958_6).abs() < 1e-4, "{twenty:?}");
        let ten = of(1..=10);
        assert_eq!((ten.median, ten.low, ten.high), (5.5, 2.0, 9.0));
        assert!((ten.confidence - 0.978_5).abs() < 1e-4, "{ten:?}");
        let six = of(1..=6);
        assert_eq!((six.low, six.high), (1.0, 6.0));
        assert!((six.confidence - 0.968_8).abs() < 1e-4, "{six:?}");
    }

    #[test]
    fn too_few_values_say_that_they_are() {
        assert_eq!(Median::of(vec![]), None);
        assert_eq!(of([3]), Median { median: 3.0, low: 3.0, high: 3.0, confidence: 0.0 });
        let three = of([9, 1, 2]);
        assert_eq!((three.median, three.low, three.high, three.confidence), (2.0, 1.0, 9.0, 0.75));
    }
}
