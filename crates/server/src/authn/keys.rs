//! Sets of public keys (RFC 7517), and what they have signed.
//!
//! **Invariants**: an algorithm is bound to a key before the key is used: by the key's own `alg`, else by what the issuer says
//! it signs with, or whoever trusts the keys; else one for each type of key. A token names its key, or there is only one that it
//! can be: no two keys are tried.

use capstan_iam::Algorithm;
use jsonwebtoken::{Algorithm as Verifies, DecodingKey, crypto};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::token::{Token, is_key_id};
use crate::limits::DISCOVERED_KEYS_MAX;

/// What has signed a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignedBy {
    /// The SHA-256 of the key and its id, which tells it from all others.
    pub(crate) key: [u8; 32],
    /// How. A key may be for several algorithms, and no more for one of them.
    pub(crate) algorithm: Algorithm,
}

/// Public keys that verify signatures.
#[derive(Clone, Default)]
pub(crate) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    kind: Kind,
    /// Those that it may verify.
    algorithms: Vec<Algorithm>,
    digest: [u8; 32],
    key: DecodingKey,
}

impl Clone for Key {
    fn clone(&self) -> Self {
        let Self { id, kind, algorithms, digest, key } = self;
        let (id, algorithms, key) = (id.clone(), algorithms.clone(), key.clone());
        Self { id, kind: *kind, algorithms, digest: *digest, key }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    const fn verifies(self, algorithm: Algorithm) -> bool {
        use Algorithm::{Ed25519, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match self {
            Self::Rsa => matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            Self::P256 => matches!(algorithm, Es256),
            Self::P384 => matches!(algorithm, Es384),
            Self::Ed25519 => matches!(algorithm, Ed25519),
        }
    }

    /// The algorithm of a key of which nobody says one: what OpenID Connect has as its default, and else the only one.
    const fn usual(self) -> Algorithm {
        match self {
            Self::Rsa => Algorithm::Rs256,
            Self::P256 => Algorithm::Es256,
            Self::P384 => Algorithm::Es384,
            Self::Ed25519 => Algorithm::Ed25519,
        }
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| (&key.id, key.kind))).finish()
    }
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys that cannot verify a signature that is taken are left out: of other types, for encryption,
    /// too short, or with a secret part. `algorithms` are those that the issuer says it signs with, or that whoever trusts the
    /// keys takes; `None` if nobody says.
    ///
    /// # Errors
    ///
    /// It is no such set, or has more than [`DISCOVERED_KEYS_MAX`] keys.
    pub(crate) fn read(text: &[u8], algorithms: Option<&[String]>) -> Result<Self, &'static str> {
        let set: Value = serde_json::from_slice(text).map_err(|_| "no JSON")?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("no list of keys")?;
        if keys.len() > DISCOVERED_KEYS_MAX {
            return Err("too many keys");
        }
        let says: Option<Vec<_>> =
            algorithms.map(|all| all.iter().filter_map(|name| Algorithm::of(name)).collect());
        Ok(Self(keys.iter().filter_map(|key| Key::read(key, says.as_deref())).collect()))
    }

    /// Reads keys that were given by whoever trusts them, with a list of the algorithms that are taken: without entries, whatever
    /// the keys are for.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub(crate) fn given(text: &[u8], algorithms: &[String]) -> Result<Self, &'static str> {
        Self::read(text, Some(algorithms).filter(|list| !list.is_empty()))
    }

    /// Whether no key is left.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a token may be of one of the keys.
    pub(crate) fn has(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        self.fitting(algorithm, id).next().is_some()
    }

    fn fitting<'s>(
        &'s self,
        algorithm: Algorithm,
        id: Option<&'s str>,
    ) -> impl Iterator<Item = &'s Key> {
        let is_named = move |key: &&Key| id.is_none_or(|id| key.id.as_deref() == Some(id));
        self.0.iter().filter(is_named).filter(move |key| key.algorithms.contains(&algorithm))
    }

    /// The key that has signed a token; `None` if none has, or if it may be of several.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Option<SignedBy> {
        let mut fitting = self.fitting(token.algorithm, token.key_id.as_deref());
        let (Some(key), None) = (fitting.next(), fitting.next()) else { return None };
        let (message, algorithm) = (token.message.as_bytes(), verifies(token.algorithm));
        let verified = crypto::verify(token.signature, message, &key.key, algorithm);
        let by = SignedBy { key: key.digest, algorithm: token.algorithm };
        verified.unwrap_or(false).then_some(by)
    }

    /// Whether a key is still among them, and still for this algorithm.
    pub(crate) fn contains(&self, by: &SignedBy) -> bool {
        let is_for = |one: &Key| one.algorithms.contains(&by.algorithm);
        self.0.iter().any(|one| one.digest == by.key && is_for(one))
    }
}

const fn verifies(algorithm: Algorithm) -> Verifies {
    match algorithm {
        Algorithm::Rs256 => Verifies::RS256,
        Algorithm::Rs384 => Verifies::RS384,
        Algorithm::Rs512 => Verifies::RS512,
        Algorithm::Ps256 => Verifies::PS256,
        Algorithm::Ps384 => Verifies::PS384,
        Algorithm::Ps512 => Verifies::PS512,
        Algorithm::Es256 => Verifies::ES256,
        Algorithm::Es384 => Verifies::ES384,
        Algorithm::Ed25519 => Verifies::EdDSA,
    }
}

impl Key {
    fn read(key: &Value, says: Option<&[Algorithm]>) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let is_secret = capstan_iam::SECRET_MEMBERS.iter().any(|name| key.get(name).is_some());
        let is_for_signatures = key.get("use").is_none_or(|usage| usage == "sig")
            && key.get("key_ops").is_none_or(|ops| {
                ops.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"))
            });
        if is_secret || !is_for_signatures {
            return None;
        }
        let (kind, parts) = match (text("kty")?, text("crv")) {
            ("RSA", _) => (Kind::Rsa, [text("n")?, text("e")?]),
            ("EC", Some("P-256")) => (Kind::P256, [text("x")?, text("y")?]),
            ("EC", Some("P-384")) => (Kind::P384, [text("x")?, text("y")?]),
            ("OKP", Some("Ed25519")) => (Kind::Ed25519, [text("x")?, ""]),
            _ => return None,
        };
        let [first, second] = parts;
        let made = match kind {
            Kind::Rsa => DecodingKey::from_rsa_components(first, second),
            Kind::P256 | Kind::P384 => DecodingKey::from_ec_components(first, second),
            Kind::Ed25519 => DecodingKey::from_ed_components(first),
        };
        let algorithms = match (key.get("alg"), says) {
            (Some(own), _) => vec![own.as_str().and_then(Algorithm::of)?],
            (None, Some(says)) => says.to_vec(),
            (None, None) => vec![kind.usual()],
        };
        let algorithms: Vec<_> = algorithms.into_iter().filter(|one| kind.verifies(*one)).collect();
        let id = match key.get("kid") {
            None => None,
            Some(id) => Some(id.as_str().filter(|id| is_key_id(id))?.to_owned()),
        };
        // Without its algorithms: what one of them has signed counts on when others come or go.
        let whole = format!("{kind:?}\n{first}\n{second}\n{id:?}");
        let digest = Sha256::digest(whole).into();
        (!algorithms.is_empty()).then_some(Self { id, kind, algorithms, digest, key: made.ok()? })
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use capstan_engine::Timestamp;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _};
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    /// A key pair, and its public half as a JWK without `alg` and `kid`.
    fn pair(algorithm: Verifies) -> (EncodingKey, Value) {
        if algorithm == Verifies::EdDSA {
            let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
            let x = URL_SAFE_NO_PAD.encode(pair.der_bytes());
            let key = EncodingKey::from_ed_der(&pair.serialize_der());
            return (key, json!({"kty": "OKP", "crv": "Ed25519", "x": x}));
        }
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (x, y) = pair.der_bytes()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        (key, json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}))
    }

    fn sign(key: &EncodingKey, algorithm: Verifies, id: Option<&str>) -> String {
        let header = Header { kid: id.map(Into::into), ..Header::new(algorithm) };
        let claims = json!({"iss": "https://a", "sub": "s", "aud": "c", "exp": NOW + 60});
        encode(&header, &claims, key).unwrap()
    }

    fn with(mut key: Value, members: &[(&str, Value)]) -> Value {
        for (name, value) in members {
            key[*name] = value.clone();
        }
        key
    }

    fn set(keys: &[Value], says: Option<&[&str]>) -> KeySet {
        let says: Option<Vec<String>> = says.map(|all| all.iter().map(|&one| one.into()).collect());
        KeySet::read(json!({"keys": keys}).to_string().as_bytes(), says.as_deref()).unwrap()
    }

    fn verifies(set: &KeySet, text: &str) -> bool {
        let token = Token::read(text, Timestamp::new(NOW, 0)).unwrap();
        set.verify(&token).is_some_and(|key| set.contains(&key))
    }

    #[test]
    fn a_token_is_verified_by_the_key_that_it_names() {
        for algorithm in [Verifies::ES256, Verifies::EdDSA] {
            let ((mine, public), (_, other)) = (pair(algorithm), pair(algorithm));
            let named = |id: &str, key: &Value| with(key.clone(), &[("kid", json!(id))]);
            let both = set(&[named("a", &public), named("b", &other)], None);
            assert!(verifies(&both, &sign(&mine, algorithm, Some("a"))));
            for id in ["b", "c", "A", "a "] {
                assert!(!verifies(&both, &sign(&mine, algorithm, Some(id))), "{id}");
            }
            assert!(!verifies(&both, &sign(&mine, algorithm, None)), "of which key?");
            assert!(verifies(&set(&[named("a", &public)], None), &sign(&mine, algorithm, None)));
            assert!(!verifies(&set(from_ref(&public), None), &sign(&mine, algorithm, Some("a"))));
            let twice = set(&[named("a", &public), named("a", &other)], None);
            assert!(!verifies(&twice, &sign(&mine, algorithm, Some("a"))), "two keys of one name");
            // Every character of a token is signed; its signature is of it alone.
            let text = sign(&mine, algorithm, Some("a"));
            let (message, signature) = text.rsplit_once('.').unwrap();
            let other = sign(&mine, algorithm, None);
            let changed = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
            assert!(!verifies(&set(from_ref(&public), None), &changed));
            assert!(!verifies(&both, &format!("{message}.")));
        }
    }

    #[test]
    fn an_algorithm_is_bound_to_a_key() {
        let (mine, public) = pair(Verifies::EdDSA);
        let text = sign(&mine, Verifies::EdDSA, None);
        for name in ["EdDSA", "Ed25519"] {
            assert!(verifies(&set(&[with(public.clone(), &[("alg", json!(name))])], None), &text));
            assert!(verifies(&set(from_ref(&public), Some(&[name])), &text), "{name}");
        }
        assert!(!verifies(&set(&[with(public.clone(), &[("alg", json!("ES256"))])], None), &text));
        assert!(!verifies(&set(from_ref(&public), Some(&["RS256", "HS256", "none"])), &text));
        // The key's own word counts before the issuer's.
        let own = with(public, &[("alg", json!("EdDSA"))]);
        assert!(verifies(&set(&[own], Some(&["RS256"])), &text));
        let rsa = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": "AQAB"});
        let has = |says: Option<&[&str]>, wanted| set(from_ref(&rsa), says).has(wanted, None);
        assert!(has(None, Algorithm::Rs256) && !has(None, Algorithm::Ps256));
        assert!(has(Some(&["RS256", "PS256"]), Algorithm::Ps256));
        assert!(!has(Some(&["PS256"]), Algorithm::Rs256));
    }

    #[test]
    fn a_key_that_is_no_more_for_an_algorithm_has_not_signed_with_it() {
        let rsa = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": "AQAB"});
        let of = |members: &[(&str, Value)], says: Option<&[&str]>| {
            set(&[with(rsa.clone(), members)], says)
        };
        let key = of(&[], None).0[0].digest;
        let (rs, ps) = (Algorithm::Rs256, Algorithm::Ps256);
        let counts =
            |set: &KeySet| [rs, ps].map(|algorithm| set.contains(&SignedBy { key, algorithm }));
        assert_eq!(counts(&of(&[], None)), [true, false]);
        assert_eq!(counts(&of(&[], Some(&["PS256", "RS256"]))), [true, true]);
        assert_eq!(counts(&of(&[], Some(&["PS256"]))), [false, true]);
        assert_eq!(counts(&of(&[("alg", json!("PS256"))], Some(&["RS256"]))), [false, true]);
        assert_eq!(counts(&of(&[("kid", json!("other"))], None)), [false, false]);
        assert_eq!(
            counts(&of(&[("n", json!(URL_SAFE_NO_PAD.encode([0xfe; 256])))], None)),
            [false; 2]
        );
    }

    #[test]
    fn keys_that_are_for_something_else_are_left_out() {
        let (mine, public) = pair(Verifies::ES256);
        let text = sign(&mine, Verifies::ES256, None);
        for members in [
            &[("use", json!("sig"))][..],
            &[("key_ops", json!(["verify"]))],
            &[("x5c", json!(["AA"])), ("x5u", json!("https://x"))],
        ] {
            assert!(verifies(&set(&[with(public.clone(), members)], None), &text), "{members:?}");
        }
        for members in [
            &[("use", json!("enc"))][..],
            &[("use", json!(1))],
            &[("key_ops", json!(["sign"]))],
            &[("d", json!("AA"))],
            &[("kty", json!("oct"))],
            &[("crv", json!("P-384"))],
            &[("crv", json!("secp256k1"))],
            &[("kid", json!(""))],
            &[("kid", json!(1))],
            &[("alg", json!("none"))],
            &[("alg", json!(["ES256"]))],
            &[("x", json!("AA"))],
            &[("x", json!("="))],
        ] {
            assert!(!verifies(&set(&[with(public.clone(), members)], None), &text), "{members:?}");
        }
        for text in ["", "[]", "{}", r#"{"keys": {}}"#, "<html>"] {
            assert!(KeySet::read(text.as_bytes(), None).is_err(), "{text}");
        }
        let many = vec![public; DISCOVERED_KEYS_MAX + 1];
        assert!(KeySet::read(json!({"keys": many}).to_string().as_bytes(), None).is_err());
        assert_eq!(format!("{:?}", set(&[], None)), "[]");
    }
}
