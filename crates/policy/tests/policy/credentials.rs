//! Credentials: their identity and expiry, and that no diagnostic quotes a secret.

use capstan_policy::Credential;

use crate::common::{check_acme, load, policy};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// A hash that YAML resolves to a number if it is not quoted.
const DIGITS: &str = "1234567890123456789012345678901234567890123456789012345678901234";

#[test]
fn a_credential_is_found_by_its_hash() {
    let text = format!(
        "identities: [{{id: alice}}, {{id: bob}}]
credentials:
- {{identity: alice, sha256: {A}}}
- {{identity: alice, sha256: {DIGITS}, expires_at: 2027-01-01T00:00:00Z}}
- identity: bob
  sha256: '{}'
",
        A.replace('a', "b")
    );
    let loaded = load(policy(&text)).unwrap();
    let credentials = &loaded.credentials;
    assert_eq!(credentials.len(), 3);
    let of = |identity: &str, expires_at: Option<i64>| {
        let expires_at = expires_at.map(|seconds| capstan_engine::Timestamp::new(seconds, 0));
        Some(Credential { identity: identity.parse().unwrap(), expires_at })
    };
    assert_eq!(credentials.get(&[0xaa; 32]).cloned(), of("alice", None));
    assert_eq!(credentials.get(&[0xbb; 32]).cloned(), of("bob", None));
    let mut digits = [0; 32];
    for (at, byte) in digits.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&DIGITS[at * 2..at * 2 + 2], 16).unwrap();
    }
    assert_eq!(credentials.get(&digits).cloned(), of("alice", Some(1_798_761_600)));
    assert_eq!(credentials.get(&[0xcc; 32]), None);
    // `Debug` shows no hash, so that no log shows one by accident.
    assert_eq!(format!("{credentials:?}"), "Credentials(3)");
    assert!(load(policy("credentials: []")).unwrap().credentials.is_empty());
    assert!(load(policy("")).unwrap().credentials.is_empty());
}

#[test]
fn a_hash_has_64_lower_case_digits() {
    let expected = "expected the SHA-256 of the secret in 64 lower-case hexadecimal digits";
    let upper = A.to_uppercase();
    for (hash, bytes) in [
        ("hunter2", 7),
        (&A[1..], 63),
        (&format!("{A}a"), 65),
        (&*upper, 64),
        (&A.replacen('a', "g", 1), 64),
        (&A.replacen("aa", "é", 1), 64),
    ] {
        let more = format!("credentials: [{{identity: alice, sha256: {hash}}}]");
        let found =
            format!("7:41: credentials[0].sha256: found a string of {bytes} bytes; {expected}");
        // A value that is no hash may be the secret itself: the diagnostic does not quote it.
        check_acme(&more, &[&found]);
    }
    let list = format!("credentials: [{{identity: alice, sha256: [{A}]}}]");
    check_acme(&list, &[&format!("7:41: credentials[0].sha256: found a list; {expected}")]);
    check_acme(
        "credentials: [{identity: alice, sha256: \
         e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}]",
        &[
            "7:41: credentials[0].sha256: found the hash of the empty string; expected the hash of a \
           secret",
        ],
    );
}

#[test]
fn a_secret_is_of_one_declared_identity() {
    let b = A.replace('a', "b");
    check_acme(
        &format!(
            "credentials:
- {{identity: alice, sha256: {A}}}
- nonsense
- {{identity: nobody, sha256: {b}}}
- {{identity: acme/ci, sha256: {A}}}
- {{identity: acme/dev}}
- {{identity: //, sha256: {A}, secret: x}}
"
        ),
        &[
            "9:3: credentials[1]: found the string `nonsense`; expected a credential: a mapping \
             with `identity` and `sha256`",
            "10:14: credentials[2].identity: found `nobody`; expected a declared identity",
            "11:31: credentials[3].sha256: found the same hash as credentials[0]; expected a \
             secret that no other credential has",
            "12:3: credentials[4]: found no `sha256`; expected the key `sha256`",
            // `acme/dev` is a group.
            "12:14: credentials[4].identity: found `acme/dev`; expected a declared identity",
            "13:14: credentials[5].identity: found `//`; expected a path (segment 1 is empty: no \
             leading, trailing or double slash)",
            "13:26: credentials[5].sha256: found the same hash as credentials[0]; expected a \
             secret that no other credential has",
            "13:92: credentials[5]: found unknown key `secret`; expected one of the keys identity, \
             sha256, expires_at",
        ],
    );
}

/// References to unreadable declarations are not reported.
#[test]
fn unreadable_identities_do_not_make_references_unknown() {
    let document =
        policy(&format!("identities: nonsense\ncredentials: [{{identity: alice, sha256: {A}}}]"));
    let found = load(document).unwrap_err();
    assert_eq!(found.total(), 1, "{found}");
}
