//! W5, W6 and A9: tokens and keys, read by code that did not make them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use capstan_events::limits::{KEY_FILE_BYTES_MAX, KEYS_MAX, TOKEN_LIFETIME};
use capstan_events::{
    Event, KeyError, Policy, PublicUrl, Signer, SigningKey, Sink, TOKEN_TYPE, UnixMillis,
};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, TokenData, Validation, decode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{ISSUER, event, new_key};

/// Made by `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`.
pub(crate) const P256_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg+cW/0y6lyDto74XI
YkWGuNDODMQoBY/3w0OpVIxEk4ihRANCAARmN+6UOILog5nm0RBjpwXhtLrO6c8v
UC6t8G4qHv82qs6UsqcaEDJkAU3x9i4I5NrD2lZkWBKv8dAE9BR6oO5F
-----END PRIVATE KEY-----
";
/// The same key in the form that `openssl ec` writes (SEC 1).
const SEC1_KEY: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIPnFv9Mupcg7aO+FyGJFhrjQzgzEKAWP98NDqVSMRJOIoAoGCCqGSM49
AwEHoUQDQgAEZjfulDiC6IOZ5tEQY6cF4bS6zunPL1AurfBuKh7/NqrOlLKnGhAy
ZAFN8fYuCOTaw9pWZFgSr/HQBPQUeqDuRQ==
-----END EC PRIVATE KEY-----
";
/// Made by `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`.
const P384_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDAtUs2y7MVaEP8IVRaS
zrulGlzAq6RJfs3snkZeppRJMMNqJslhQuLNHEQOYEWRu0qhZANiAAT8TKAyWzND
cOqKz69+XQOkrbE+JtpjlWYqUgHB+b06N7Kr0CWJLSV3g31Tyn2MHmBGuCFhHRDf
+eiXMaBlYVHUrUhL4yEx65V2j2vGfNjI6iEGhjlZSfVnwfGKVB36ujo=
-----END PRIVATE KEY-----
";
/// Made by `openssl genpkey -algorithm x25519`.
const X25519_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEIJA98cFM/qQlAPOtOOG8pXRcfHTHEXB3BfOWOOGFMl5u
-----END PRIVATE KEY-----
";
/// Made by `openssl genpkey -algorithm ed25519`.
pub(crate) const ED25519_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAmzsL0ydLzmw2hGjia+hTIy9259/MnlNt122lUUzjZm
-----END PRIVATE KEY-----
";

fn signer(key: SigningKey, further: Vec<SigningKey>) -> Signer {
    Signer::new(PublicUrl::parse(ISSUER).unwrap(), key, further).unwrap()
}

fn sink() -> Sink {
    Sink::parse("https://hooks.example.com:8443/iam?key=7", &Policy::default()).unwrap()
}

fn token(signer: &Signer, event: &Event, now: UnixMillis) -> String {
    let token = signer.sign(&sink(), "acme", event, now).unwrap();
    assert!(!format!("{token:?}").contains('.'), "a token is not shown: {token:?}");
    token.authorization().to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned()
}

/// Verifies with the key that `kid` names, as a receiver does.
fn verified(token: &str, jwks: &str) -> jsonwebtoken::errors::Result<TokenData<Value>> {
    let keys: JwkSet = serde_json::from_str(jwks).unwrap();
    let header = jsonwebtoken::decode_header(token)?;
    let key =
        keys.find(&header.kid.unwrap()).ok_or(jsonwebtoken::errors::ErrorKind::InvalidToken)?;
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&["https://hooks.example.com:8443"]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    decode(token, &DecodingKey::from_jwk(key)?, &validation)
}

#[test]
fn a_token_says_who_sends_what_to_whom() {
    let signer = signer(new_key(), Vec::new());
    let (event, now) = (event("7f01"), UnixMillis::now());
    let token = token(&signer, &event, now);
    let TokenData { header, claims, .. } = verified(&token, &signer.jwks()).unwrap();
    assert_eq!(header.typ.as_deref(), Some(TOKEN_TYPE));
    assert_eq!(header.alg, Algorithm::EdDSA);
    let digest = Sha256::digest(event.data());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        claims,
        json!({
            "iss": "https://iam.example.com",
            "sub": "webhook:acme",
            "aud": "https://hooks.example.com:8443",
            "iat": now.seconds(),
            "exp": now.seconds() + TOKEN_LIFETIME.as_secs(),
            "jti": "7f01",
            "webhook": {"digest": format!("sha256:{digest}")},
        })
    );
}

#[test]
fn a_token_ends_and_cannot_be_changed() {
    let signer = signer(new_key(), Vec::new());
    let hour_ago = UnixMillis(UnixMillis::now().0 - 3_600_000);
    let old = token(&signer, &event("7f01"), hour_ago);
    let error = verified(&old, &signer.jwks()).unwrap_err();
    assert_eq!(*error.kind(), jsonwebtoken::errors::ErrorKind::ExpiredSignature);

    let good = token(&signer, &event("7f01"), UnixMillis::now());
    assert!(verified(&good, &signer.jwks()).is_ok());
    let [header, claims, _] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let other = token(&signer, &event("7f02"), UnixMillis::now());
    let signature = other.split('.').nth(2).unwrap();
    let mixed = format!("{header}.{claims}.{signature}");
    let error = verified(&mixed, &signer.jwks()).unwrap_err();
    assert_eq!(*error.kind(), jsonwebtoken::errors::ErrorKind::InvalidSignature);
}

#[test]
fn keys_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["former", "present", "next"] {
        SigningKey::generate(&path(name)).unwrap();
    }
    let load = |name: &str| SigningKey::load(&path(name)).unwrap();
    let before = signer(load("former"), vec![load("present")]);
    let after = signer(load("present"), vec![load("former"), load("next")]);
    let (old, new) =
        [&before, &after].map(|signer| token(signer, &event("7f01"), UnixMillis::now())).into();
    for jwks in [before.jwks(), after.jwks()] {
        assert!(verified(&old, &jwks).is_ok() && verified(&new, &jwks).is_ok());
    }
    let later = signer(load("next"), vec![load("present")]).jwks();
    assert!(verified(&old, &later).is_err() && verified(&new, &later).is_ok());

    let jwks: Value = serde_json::from_str(&after.jwks()).unwrap();
    let keys = jwks["keys"].as_array().unwrap();
    let kids: Vec<_> = keys.iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert_eq!(kids, ["present", "former", "next"].map(|name| load(name).kid().to_owned()));
    for key in keys {
        let mut members: Vec<_> = key.as_object().unwrap().keys().collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"], "nothing private");
    }
}

/// RFC 7638: the id of a key follows from the key, and is what other libraries compute.
#[test]
fn a_kid_is_the_thumbprint() {
    for pem in [ED25519_KEY, P256_KEY] {
        let signer = signer(SigningKey::from_pem(pem.as_bytes()).unwrap(), Vec::new());
        let keys: JwkSet = serde_json::from_str(&signer.jwks()).unwrap();
        let thumbprint = keys.keys[0].thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256);
        assert_eq!(keys.keys[0].common.key_id, Some(thumbprint.unwrap()));
    }
}

#[test]
fn the_key_decides_the_algorithm() {
    for (pem, algorithm) in [(ED25519_KEY, Algorithm::EdDSA), (P256_KEY, Algorithm::ES256)] {
        let signer = signer(SigningKey::from_pem(pem.as_bytes()).unwrap(), vec![new_key()]);
        let token = token(&signer, &event("7f01"), UnixMillis::now());
        let found = verified(&token, &signer.jwks()).unwrap();
        assert_eq!(found.header.alg, algorithm);
        let jwks: Value = serde_json::from_str(&signer.jwks()).unwrap();
        assert_eq!(jwks["keys"][0]["alg"], format!("{algorithm:?}"));
        assert_eq!(jwks["keys"][0]["d"], Value::Null, "nothing private");
    }
}

#[test]
fn too_many_and_equal_keys_are_refused() {
    let url = || PublicUrl::parse(ISSUER).unwrap();
    let keys = |count: usize| (0..count).map(|_| new_key()).collect();
    assert!(Signer::new(url(), new_key(), keys(KEYS_MAX - 1)).is_ok());
    assert!(matches!(Signer::new(url(), new_key(), keys(KEYS_MAX)), Err(KeyError::TooMany)));
    let key = || SigningKey::from_pem(P256_KEY.as_bytes()).unwrap();
    let twice = Signer::new(url(), key(), vec![new_key(), key()]).unwrap_err();
    assert_eq!(twice.to_string(), format!("signing key {} is given twice", key().kid()));
}

#[test]
fn a_key_file_is_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let made = SigningKey::generate(&path).unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(SigningKey::load(&path).unwrap().kid(), made.kid());
    let again = SigningKey::generate(&path).unwrap_err();
    assert!(matches!(again, KeyError::File { .. }), "a key is never overwritten: {again}");

    for bits in 0..=0o777 {
        fs::set_permissions(&path, fs::Permissions::from_mode(bits | 0o400)).unwrap();
        let loaded = SigningKey::load(&path);
        match bits & 0o077 {
            0 => assert!(loaded.is_ok(), "{bits:o}"),
            _ => assert!(matches!(loaded, Err(KeyError::Mode { .. })), "{bits:o}"),
        }
    }
    let text = SigningKey::load(&path).unwrap_err().to_string();
    let name = path.display();
    assert_eq!(
        text,
        format!("signing key {name}: mode 0777 lets others use it, run `chmod 600 {name}`")
    );
    let absent = SigningKey::load(&folder.path().join("absent")).unwrap_err();
    assert!(matches!(absent, KeyError::File { .. }), "{absent}");
}

#[test]
fn only_keys_in_pkcs8_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let load = |pem: &str| {
        fs::write(&path, pem).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        SigningKey::load(&path)
    };
    for pem in [P256_KEY, ED25519_KEY] {
        let key = load(pem).unwrap();
        assert!(!format!("{key:?}").contains(pem.lines().nth(1).unwrap()));
    }
    for (pem, what) in [
        ("", "empty"),
        ("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", "no key"),
        (SEC1_KEY, "SEC 1"),
        (P384_KEY, "another curve"),
        (X25519_KEY, "a key that does not sign"),
        (&P256_KEY.replace("PRIVATE", "PUBLIC"), "a public key"),
        (
            &format!("{P256_KEY}{}", "#".repeat(usize::try_from(KEY_FILE_BYTES_MAX).unwrap())),
            "too long",
        ),
    ] {
        assert!(matches!(load(pem), Err(KeyError::Format)), "{what}");
    }
}
