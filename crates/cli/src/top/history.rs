//! The figures of the last minutes, for the curves.

use std::collections::VecDeque;
use std::time::Duration;

use super::view::View;
use crate::limits::TOP_HISTORY;

/// The intervals of the last [`TOP_HISTORY`], oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct History(VecDeque<Interval>);

/// One interval. Times are relative to the start of `capstan top`.
#[derive(Clone, Debug)]
struct Interval {
    from: Duration,
    to: Duration,
    calls_per_second: f64,
    p99_seconds: Option<f64>,
}

/// Which curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    CallsPerSecond,
    /// In seconds; `None` in intervals without calls.
    P99,
}

impl History {
    /// Appends an interval that ended at `now`, and drops those before [`TOP_HISTORY`].
    pub(super) fn add(&mut self, view: &View, now: Duration) {
        let took = Duration::try_from_secs_f64(view.seconds.unwrap_or_default());
        self.0.push_back(Interval {
            from: now.saturating_sub(took.unwrap_or_default()),
            to: now,
            calls_per_second: view.all.calls.per_second.unwrap_or_default(),
            p99_seconds: view.all.latency_seconds.p99.map(|p99| p99.seconds),
        });
        let is_over = |interval: &Interval| interval.to + TOP_HISTORY < now;
        while self.0.front().is_some_and(is_over) {
            self.0.pop_front();
        }
    }

    /// The curve in `width` columns of equal time; the last column ends with the last interval. A column has
    /// the maximum of the intervals that overlap it, so that peaks stay visible; `None` without intervals.
    pub(super) fn columns(&self, curve: Curve, width: u16) -> Vec<Option<f64>> {
        let now = self.0.back().map_or(Duration::ZERO, |last| last.to);
        let column = TOP_HISTORY / u32::from(width.max(1));
        let columns = (0..width).rev().map(|back| {
            let to = now.checked_sub(column * u32::from(back))?;
            let from = to.saturating_sub(column);
            let touched = self.0.iter().filter(|interval| interval.from < to && interval.to > from);
            let values = touched.filter_map(|interval| match curve {
                Curve::CallsPerSecond => Some(interval.calls_per_second),
                Curve::P99 => interval.p99_seconds,
            });
            values.max_by(f64::total_cmp)
        });
        columns.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;
    use capstan_engine::Timestamp;

    /// An interval of a second in which so many calls ended.
    fn second(calls: u64) -> View {
        let line = format!("capstan_requests_total{{rpc=\"Check\",code=\"OK\"}} {calls}");
        let (none, sample) = (Sample::of(""), Sample::of(&line));
        View::between(&none, &sample, Duration::from_secs(1), Timestamp::new(0, 0))
    }

    #[test]
    fn a_column_shows_the_peak_of_its_time() {
        let mut history = History::default();
        assert_eq!(history.columns(Curve::CallsPerSecond, 3), [None, None, None]);
        for at in 1..=90 {
            history.add(&second(at), Duration::from_secs(at));
        }
        // Five columns of a minute: the last ends now, the first ones are before the beginning.
        assert_eq!(
            history.columns(Curve::CallsPerSecond, 5),
            [None, None, None, Some(30.0), Some(90.0)]
        );
        assert_eq!(history.columns(Curve::P99, 5), [None; 5]);
        assert_eq!(history.columns(Curve::P99, 0), []);
        // A gap is a gap.
        history.add(&second(7), Duration::from_secs(211));
        assert_eq!(
            history.columns(Curve::CallsPerSecond, 5),
            [None, Some(31.0), Some(90.0), None, Some(7.0)]
        );
    }

    #[test]
    fn old_intervals_are_dropped() {
        let mut history = History::default();
        for at in 1..=1_000 {
            history.add(&second(at), Duration::from_secs(at));
        }
        assert_eq!(history.0.len() as u64, TOP_HISTORY.as_secs() + 1);
    }
}
