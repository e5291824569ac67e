//! Counts, rates and quantiles of sample scrapes.

use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::new(1_795_000_000, 123_456_789);

/// The metrics of a server after these numbers of Check calls.
fn checks(granted: u64, denied: u64, failed: u64) -> String {
    let calls = granted + denied;
    format!(
        "capstan_requests_total{{rpc=\"Check\",code=\"OK\"}} {calls}\n\
         capstan_requests_total{{rpc=\"Check\",code=\"INTERNAL\"}} {failed}\n\
         capstan_requests_total{{rpc=\"Explain\",code=\"OK\"}} 0\n\
         capstan_decisions_total{{rpc=\"Check\",allowed=\"true\"}} {granted}\n\
         capstan_decisions_total{{rpc=\"Check\",allowed=\"false\"}} {denied}\n\
         capstan_decision_reasons_total{{rpc=\"Check\",reason=\"NO_BINDING\"}} {denied}\n\
         capstan_decision_reasons_total{{rpc=\"Check\",reason=\"GRANTED\"}} {granted}\n\
         capstan_shed_total{{scope=\"peer\"}} {failed}\n"
    )
}

fn between(earlier: &str, later: &str, seconds: f64) -> View {
    let (earlier, later) = (Sample::of(earlier), Sample::of(later));
    View::between(&earlier, &later, Duration::from_secs_f64(seconds), NOW)
}

fn per_second(count: u64, per_second: f64) -> Count {
    Count { count, per_second: Some(per_second) }
}

#[test]
fn an_interval_has_only_new_counts() {
    let view = between(&checks(10, 5, 1), &checks(16, 7, 2), 2.0);
    assert!(!view.restarted);
    assert_eq!(view.seconds, Some(2.0));
    assert_eq!(view.all.calls, per_second(9, 4.5));
    assert_eq!(view.all.failed, per_second(1, 0.5));
    assert_eq!(view.all.decisions, per_second(8, 4.0));
    assert_eq!(view.all.allowed, per_second(6, 3.0));
    assert_eq!(view.all.denied, per_second(2, 1.0));
    let rpcs: Vec<_> = view.rpcs.iter().map(|rpc| (&*rpc.rpc, rpc.known, &rpc.flow)).collect();
    assert_eq!(rpcs[0], ("Check", true, &view.all));
    assert_eq!((rpcs[1].0, rpcs[1].1, rpcs[1].2.calls), ("Explain", false, per_second(0, 0.0)));
    // In the order of the engine, not of the text.
    let reasons: Vec<_> = view.reasons.iter().map(|it| (&*it.reason, it.count, it.share)).collect();
    let expected =
        [("GRANTED", per_second(6, 3.0), 0.75), ("NO_BINDING", per_second(2, 1.0), 0.25)];
    assert_eq!(reasons, expected);
    assert_eq!(view.shed, Shed { global: per_second(0, 0.0), peer: per_second(1, 0.5) });
}

#[test]
fn a_total_has_no_rates() {
    let view = View::total(&Sample::of(&checks(3, 1, 0)), NOW);
    assert_eq!((view.seconds, view.restarted), (None, false));
    assert_eq!(view.all.calls, Count { count: 4, per_second: None });
    assert!(view.errors.is_empty());
}

#[test]
fn a_restarted_server_is_counted_from_zero() {
    let view = between(&checks(10, 5, 1), &checks(11, 2, 1), 1.0);
    assert!(view.restarted);
    assert_eq!((view.all.allowed.count, view.all.denied.count), (11, 2));
    let later = "capstan_requests_total{rpc=\"Check\",code=\"OK\"} 100";
    assert!(between(&checks(10, 5, 1), later, 1.0).restarted, "a missing counter");
    assert!(!between(later, &checks(100, 0, 0), 1.0).restarted, "a new counter");
}

#[test]
fn empty_intervals_and_huge_counts_give_numbers() {
    let view = between(&checks(1, 1, 1), &checks(1, 1, 1), 0.0);
    assert_eq!(view.all.calls, per_second(0, 0.0));
    assert!(view.reasons.iter().all(|reason| reason.share == 0.0));
    assert_eq!(view.all.latency_seconds, Latency::default());
    // Huge values from another program.
    let most = "capstan_requests_total{rpc=\"a\",code=\"OK\"} 1e30\n\
                capstan_requests_total{rpc=\"b\",code=\"X\"} 1e30";
    assert_eq!(between("", most, 1.0).all.calls.count, u64::MAX);
}

#[test]
fn errors_are_sorted_by_their_rate() {
    let codes = |counts: [u64; 3]| {
        let codes = ["ABORTED", "INTERNAL", "UNAVAILABLE"].into_iter().zip(counts);
        let line = |(code, count)| {
            format!("capstan_requests_total{{rpc=\"Check\",code=\"{code}\"}} {count}\n")
        };
        codes.map(line).collect::<String>()
    };
    let view = between(&codes([5, 1, 1]), &codes([5, 2, 9]), 1.0);
    let errors: Vec<_> =
        view.errors.iter().map(|error| (&*error.code, error.count.count)).collect();
    assert_eq!(errors, [("UNAVAILABLE", 8), ("INTERNAL", 1)]);
}

// === Latencies ===

/// The quantile of a histogram with these bounds in milliseconds and cumulative counts.
fn quantile_of(buckets: &[(u64, u64)], part: f64) -> Option<Quantile> {
    let nanos = |bound| if bound == u64::MAX { bound } else { bound * 1_000_000 };
    quantile(&buckets.iter().map(|(bound, calls)| (nanos(*bound), *calls)).collect(), part)
}

fn milliseconds(buckets: &[(u64, u64)], part: f64) -> f64 {
    let found = quantile_of(buckets, part).unwrap();
    assert!(!found.beyond);
    (found.seconds * 1e9).round() / 1e6
}

#[test]
fn quantiles_are_interpolated_within_a_bucket() {
    let buckets = [(10, 50), (20, 90), (40, 100), (u64::MAX, 100)];
    assert_eq!(milliseconds(&buckets, 0.25), 5.0);
    assert_eq!(milliseconds(&buckets, 0.5), 10.0);
    assert_eq!(milliseconds(&buckets, 0.7), 15.0);
    assert_eq!(milliseconds(&buckets, 0.9), 20.0);
    assert_eq!(milliseconds(&buckets, 0.95), 30.0);
    assert_eq!(milliseconds(&buckets, 1.0), 40.0);
    // One call in a bucket with empty neighbours.
    let one = [(10, 0), (20, 0), (40, 1), (80, 1), (u64::MAX, 1)];
    assert_eq!(milliseconds(&one, 0.5), 30.0);
    assert_eq!(milliseconds(&one, 0.999), 39.98);
}

#[test]
fn quantiles_beyond_the_last_bound_are_marked() {
    let buckets = [(10, 1), (20, 1), (u64::MAX, 10)];
    assert_eq!(quantile_of(&buckets, 0.5), Some(Quantile { seconds: 0.02, beyond: true }));
    assert_eq!(milliseconds(&buckets, 0.1), 10.0);
}

#[test]
fn without_calls_there_is_no_quantile() {
    assert_eq!(quantile_of(&[], 0.5), None);
    assert_eq!(quantile_of(&[(10, 0), (u64::MAX, 0)], 0.99), None);
    // Counts of another program that are not cumulative cause no panic.
    assert_eq!(milliseconds(&[(10, 9), (20, 3), (40, 10)], 0.95), 30.0);
}

#[test]
fn latencies_are_of_the_interval_and_exclude_streams() {
    let buckets = |rpc: &str, counts: [u64; 3]| {
        let bounds = ["0.001", "0.002", "+Inf"].into_iter().zip(counts);
        let line = |(le, count)| {
            let labels = format!("le=\"{le}\",rpc=\"{rpc}\"");
            format!("capstan_request_duration_seconds_bucket{{{labels}}} {count}\n")
        };
        bounds.map(line).collect::<String>()
    };
    let earlier = buckets("Check", [0, 1_000, 1_000]) + &buckets("StreamCheck", [0, 0, 0]);
    let later = buckets("Check", [10, 1_010, 1_010]) + &buckets("StreamCheck", [0, 0, 100]);
    let view = between(&earlier, &later, 1.0);
    let fast = Some(Quantile { seconds: 0.0005, beyond: false });
    assert_eq!(view.all.latency_seconds.p50, fast);
    let p50s: Vec<_> = view.rpcs.iter().map(|rpc| rpc.flow.latency_seconds.p50).collect();
    assert_eq!(p50s, [fast, Some(Quantile { seconds: 0.002, beyond: true })]);
}

// === JSON ===

#[test]
fn json_has_the_documented_fields() {
    let view = between(&checks(0, 0, 0), &checks(3, 1, 1), 2.0);
    let count = |count: u64, rate: f64| json!({"count": count, "per_second": rate});
    let none = json!({"p50": null, "p90": null, "p99": null, "p99_9": null});
    let value = serde_json::to_value(&view).unwrap();
    assert_eq!(value["time"], "2026-11-18T11:06:40.123Z");
    assert_eq!((&value["seconds"], &value["restarted"]), (&json!(2.0), &json!(false)));
    assert_eq!((&value["version"], &value["revision"]), (&json!("0.1.0"), &json!(0)));
    assert_eq!(value["calls"], count(5, 2.5));
    assert_eq!(value["denied"], count(1, 0.5));
    assert_eq!(value["rpcs"][0]["rpc"], "Check");
    assert_eq!(value["rpcs"][0]["failed"], count(1, 0.5));
    assert_eq!(value["rpcs"][0]["latency_seconds"], none);
    let granted = json!({"reason": "GRANTED", "count": 3, "per_second": 1.5, "share": 0.75});
    assert_eq!(value["reasons"][0], granted);
    assert_eq!(value["errors"], json!([{"code": "INTERNAL", "count": 1, "per_second": 0.5}]));
    assert_eq!(value["shed"], json!({"global": count(0, 0.0), "peer": count(1, 0.5)}));
    assert_eq!(value["loads"]["last_applied"], json!(null));
    let total = serde_json::to_value(View::total(&Sample::of(""), NOW)).unwrap();
    assert_eq!((total.get("seconds"), &total["calls"]), (None, &json!({"count": 0})));
}

/// Every JSON field has an explanation in the help.
#[test]
fn help_documents_every_field() {
    let value = serde_json::to_value(between("", &checks(1, 1, 1), 1.0)).unwrap();
    let help = super::super::EXAMPLES;
    let (_, fields) = help.split_once("JSON fields:").unwrap();
    let words: Vec<&str> = fields.split(|at: char| !at.is_alphanumeric() && at != '_').collect();
    let mut left = vec![&value];
    let mut seen = 0;
    while let Some(value) = left.pop() {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    assert!(words.contains(&name.as_str()), "`{name}` is not in the help");
                    left.push(value);
                    seen += 1;
                }
            }
            serde_json::Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    assert!(seen > 50, "{seen}");
}
