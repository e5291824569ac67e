//! Which answers are consent, and which challenges are valid.

use super::*;
use crate::guard::Policy;
use crate::public_url::PublicUrl;
use crate::signer::SigningKey;

fn key(folder: &tempfile::TempDir, name: &str) -> SigningKey {
    let path = folder.path().join(name);
    if path.exists() { SigningKey::load(&path) } else { SigningKey::generate(&path) }.unwrap()
}

fn signer(folder: &tempfile::TempDir, key_name: &str, further: &[&str]) -> Signer {
    let further = further.iter().map(|name| key(folder, name)).collect();
    let issuer = PublicUrl::parse("https://iam.example.com").unwrap();
    Signer::new(issuer, key(folder, key_name), further).unwrap()
}

fn sink(text: &str) -> Sink {
    Sink::parse(text, &Policy::default()).unwrap()
}

fn read(status: u16, headers: &[(&'static str, &'static str)]) -> Consent {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_static(value));
    }
    let origin = HeaderValue::from_static("iam.example.com");
    Consent::read(StatusCode::from_u16(status).unwrap(), &map, &origin)
}

#[test]
fn consent_needs_a_success_and_a_header_that_names_us() {
    let origin = "webhook-allowed-origin";
    let granted = Consent::Granted { rate: None };
    for (status, headers, expected) in [
        (200, vec![(origin, "iam.example.com")], granted),
        (204, vec![(origin, "*")], granted),
        (200, vec![(origin, "IAM.example.com")], granted),
        // aiohttp and Node, axum, Flask (facts of the receivers).
        (405, vec![("allow", "POST")], Consent::Withheld),
        (400, vec![], Consent::Withheld),
        (200, vec![("allow", "OPTIONS, POST")], Consent::Withheld),
        (200, vec![(origin, "")], Consent::Withheld),
        (200, vec![(origin, "iam.example.com.evil.example")], Consent::Withheld),
        (200, vec![(origin, "https://iam.example.com")], Consent::Withheld),
        (200, vec![(origin, "other.example, iam.example.com")], Consent::Withheld),
        (200, vec![(origin, "other.example"), (origin, "iam.example.com")], Consent::Withheld),
        (200, vec![(origin, "**")], Consent::Withheld),
        (200, vec![("access-control-allow-origin", "*")], Consent::Withheld),
        (405, vec![(origin, "*")], Consent::Withheld),
        (302, vec![(origin, "*")], Consent::Withheld),
        (500, vec![(origin, "iam.example.com")], Consent::Withheld),
    ] {
        assert_eq!(read(status, &headers), expected, "{status} {headers:?}");
    }
}

#[test]
fn a_rate_is_requests_per_minute() {
    let rate =
        |value| read(200, &[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", value)]);
    assert_eq!(rate("120"), Consent::Granted { rate: NonZeroU32::new(120) });
    assert_eq!(rate("120").interval(), Duration::from_millis(500));
    for none in ["*", "0", "-1", "many", "99999999999"] {
        assert_eq!(rate(none), Consent::Granted { rate: None }, "{none}");
    }
    assert_eq!(rate("*").interval(), Duration::ZERO);
    assert_eq!(Consent::Withheld.interval(), Duration::ZERO);
}

#[test]
fn a_challenge_is_for_one_sink_of_one_subscription() {
    let folder = tempfile::tempdir().unwrap();
    let challenges = Challenges::new(&signer(&folder, "a", &[])).unwrap();
    let (here, there) = (sink("https://hooks.example.com/a"), sink("https://hooks.example.com/b"));
    let about = Challenged { subscription: "acme/s1", incarnation: 7, sink: &here };
    let now = UnixMillis(1_800_000_000_000);
    let challenge = challenges.issue(about, now).unwrap();
    assert_eq!(challenge.len(), CHALLENGE_PREFIX.len() + 90, "{challenge}");
    assert_eq!(challenges.verify(&challenge, about, now), Ok(()));

    for other in [
        Challenged { subscription: "acme/s2", ..about },
        Challenged { incarnation: 8, ..about },
        Challenged { sink: &there, ..about },
    ] {
        assert_eq!(challenges.verify(&challenge, other, now), Err(ChallengeError), "{other:?}");
    }
    assert_ne!(challenges.issue(about, now).unwrap(), challenge, "each has random bytes");

    let mut last = challenge.clone();
    let swapped = if last.pop() == Some('a') { 'b' } else { 'a' };
    last.push(swapped);
    let cut = challenge.get(..challenge.len() - 8).unwrap();
    for text in [
        "",
        "capstan_wc_",
        &challenge.to_uppercase(),
        &last,
        cut,
        &challenge.replace("_wc_", "_pt_"),
    ] {
        assert_eq!(challenges.verify(text, about, now), Err(ChallengeError), "{text}");
    }
}

#[test]
fn a_challenge_ends() {
    let folder = tempfile::tempdir().unwrap();
    let challenges = Challenges::new(&signer(&folder, "a", &[])).unwrap();
    let sink = sink("https://hooks.example.com/a");
    let about = Challenged { subscription: "acme/s1", incarnation: 7, sink: &sink };
    let now = UnixMillis(1_800_000_000_000);
    let challenge = challenges.issue(about, now).unwrap();
    let end = now.after(CHALLENGE_LIFETIME);
    assert_eq!(challenges.verify(&challenge, about, UnixMillis(end.0 - 1)), Ok(()));
    assert_eq!(challenges.verify(&challenge, about, end), Err(ChallengeError));
    // Another replica's clock may be a little behind, not a day.
    let behind = |ms| UnixMillis(now.0 - ms);
    assert_eq!(challenges.verify(&challenge, about, behind(60_000)), Ok(()));
    assert_eq!(challenges.verify(&challenge, about, behind(60_001)), Err(ChallengeError));
}

#[test]
fn a_challenge_survives_a_change_of_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let sink = sink("https://hooks.example.com/a");
    let about = Challenged { subscription: "acme/s1", incarnation: 7, sink: &sink };
    let now = UnixMillis(1_800_000_000_000);
    let before = Challenges::new(&signer(&folder, "a", &[])).unwrap();
    let challenge = before.issue(about, now).unwrap();
    let after = Challenges::new(&signer(&folder, "b", &["a"])).unwrap();
    assert_eq!(after.verify(&challenge, about, now), Ok(()));
    let later = Challenges::new(&signer(&folder, "c", &["b"])).unwrap();
    assert_eq!(later.verify(&challenge, about, now), Err(ChallengeError));
}

#[test]
fn a_challenge_travels_as_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let signer = signer(&folder, "a", &[]);
    let challenges = Challenges::new(&signer).unwrap();
    let sink = sink("https://hooks.example.com/a");
    let about = Challenged { subscription: "acme/s1", incarnation: 7, sink: &sink };
    let now = UnixMillis(1_800_000_000_000);
    let challenge = challenges.issue(about, now).unwrap();
    let event = Challenges::event(&signer, about, "acme", &challenge, now).unwrap();
    assert_eq!(event.headers()["ce-type"], CHALLENGE_EVENT_TYPE);
    assert_eq!(event.headers()["ce-subject"], "acme/s1");
    assert_eq!(event.headers()["ce-group"], "acme");
    let data: serde_json::Value = serde_json::from_slice(event.data()).unwrap();
    let expected = serde_json::json!({
        "subscription": "acme/s1", "challenge": challenge, "expires_at": "2027-01-16T08:00:00Z"
    });
    assert_eq!(data, expected);
}
