//! The token of a delivery, and the keys that receivers verify it with.
//!
//! ```text
//! event, sink, group ─▶ {"iss", "sub", "aud", "iat", "exp", "jti", "webhook": {"digest"}} ─▶ EdDSA ─▶ Authorization: Bearer
//!                                                              keys ─▶ public part ─▶ {"keys": [...]} at .well-known/jwks.json
//! ```
//!
//! The token says that this service sends this body, as this event, to this origin, for a subscription of this group. It is
//! no token of the API: its `typ` is [`TOKEN_TYPE`], and its audience is the sink (RFC 8725, sections 3.9 and 3.11).
//!
//! The key decides the algorithm: Ed25519 signs with `EdDSA`, which [`SigningKey::generate`] makes, because it takes half the
//! time; P-256 signs with `ES256`, for receivers whose libraries have nothing else.
//!
//! To change the key: publish the next one as a further key, wait until
//! receivers have read it, sign with it and publish the former one as a further key, and remove that after five minutes
//! ([`TOKEN_LIFETIME`]) or later.
//!
//! **Invariants**: a private key is never shown, and never read from a file that others than its owner can read. `kid` is
//! the key's thumbprint (RFC 7638), so one key has one `kid` everywhere.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use aws_lc_rs::encoding::AsBigEndian as _;
use aws_lc_rs::pkcs8::Document;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, Signature,
};
use aws_lc_rs::{digest, hkdf, hmac};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use http::HeaderValue;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;

use crate::clock::UnixMillis;
use crate::event::Event;
use crate::limits::{KEY_FILE_BYTES_MAX, KEYS_MAX, TOKEN_LIFETIME};
use crate::public_url::PublicUrl;
use crate::sink::Sink;

/// `typ` in the header of the tokens.
pub const TOKEN_TYPE: &str = "capstan-webhook+jwt";

/// A key that signs tokens.
pub struct SigningKey {
    pair: Pair,
    jwk: Jwk,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

/// Signs tokens with one key, and publishes it and further ones.
#[derive(Debug)]
pub struct Signer {
    issuer: PublicUrl,
    key: SigningKey,
    further: Vec<SigningKey>,
}

/// The token of one attempt to deliver one event. Its `Debug` text does not show it.
#[derive(Clone, Debug)]
pub struct Token(HeaderValue);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("signing key {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// Others than the owner can read or write the file.
    #[error("signing key {path}: mode {mode:04o} lets others use it, run `chmod 600 {path}`")]
    Mode {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// Not a private key of Ed25519 or P-256 in PKCS#8, as PEM.
    #[error(
        "signing key: not a private key of Ed25519 or P-256 in PEM (PKCS#8). `openssl genpkey -algorithm ed25519` makes \
         one"
    )]
    Format,
    /// More keys than [`KEYS_MAX`].
    #[error("more than {KEYS_MAX} signing keys: remove the oldest")]
    TooMany,
    /// The same key twice.
    #[error("signing key {0} is given twice")]
    Twice(String),
    /// The system has no random numbers.
    #[error("no random numbers for a new signing key")]
    Random,
}

/// Signing failed: the system has no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token of the event could not be signed")]
pub struct SignError;

impl SigningKey {
    /// Makes a key of Ed25519 and keeps it in a new file that only its owner can read (mode 0600). The file is whole once it has its
    /// name.
    ///
    /// # Errors
    ///
    /// If the file exists or cannot be written.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let document = new_ed25519()?;
        let mut pem = "-----BEGIN PRIVATE KEY-----\n".to_owned();
        for line in document.as_ref().chunks(48) {
            BASE64.encode_append(line, &mut pem);
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| KeyError::Random)?;
        let unfinished = path.with_extension(HEXLOWER.encode(&random));
        let write = || {
            let mut file = OpenOptions::new();
            let mut file = file.write(true).create_new(true).mode(0o600).open(&unfinished)?;
            file.write_all(pem.as_bytes())?;
            file.sync_all()?;
            // Unlike a rename it replaces nothing.
            fs::hard_link(&unfinished, path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        let written = write();
        let _ = fs::remove_file(&unfinished);
        written.map_err(|error| KeyError::File { path: path.display().to_string(), error })?;
        Self::from_pkcs8(document.as_ref())
    }

    /// Makes a key of Ed25519 that ends with the process.
    ///
    /// # Errors
    ///
    /// If the system has no random numbers.
    pub fn not_kept() -> Result<Self, KeyError> {
        Self::from_pkcs8(new_ed25519()?.as_ref())
    }

    /// Reads a key from a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, others than its owner can read or write it, or it is not a key.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = path.display().to_string();
        let failed = |error| KeyError::File { path: text.clone(), error };
        let file = OpenOptions::new().read(true).open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Mode { path: text, mode });
        }
        let mut pem = Vec::new();
        file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut pem).map_err(failed)?;
        if u64::try_from(pem.len()).unwrap_or(u64::MAX) > KEY_FILE_BYTES_MAX {
            return Err(KeyError::Format);
        }
        Self::from_pem(&pem)
    }

    /// Reads a key from PEM.
    ///
    /// # Errors
    ///
    /// If it is not a private key of Ed25519 or P-256 in PKCS#8.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::Format)?;
        Self::from_pkcs8(der.secret_pkcs8_der())
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let (pair, jwk) = if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            let jwk = Jwk::ed25519(pair.public_key().as_ref());
            (Pair::Ed25519(pair), Some(jwk))
        } else {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
            let pair = pair.map_err(|_| KeyError::Format)?;
            let jwk = Jwk::p256(pair.public_key().as_ref());
            (Pair::P256(pair), jwk)
        };
        Ok(Self { pair, jwk: jwk.ok_or(KeyError::Format)? })
    }

    /// Its id in tokens and in the published keys.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.jwk.kid
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(message),
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), message),
        };
        signature.map_err(|_| SignError)
    }

    /// A key for HMAC-SHA256 that follows from the private key and a purpose.
    fn derive(&self, purpose: &[u8]) -> Result<hmac::Key, KeyError> {
        let salt = hkdf::Salt::none(hkdf::HKDF_SHA256);
        let failed = |_| KeyError::Format;
        let derived = match &self.pair {
            Pair::Ed25519(pair) => {
                salt.extract(pair.seed().map_err(failed)?.as_be_bytes().map_err(failed)?.as_ref())
            }
            Pair::P256(pair) => {
                salt.extract(pair.private_key().as_be_bytes().map_err(failed)?.as_ref())
            }
        };
        let purpose = [purpose];
        let derived = derived.expand(&purpose, hkdf::HKDF_SHA256.hmac_algorithm());
        Ok(derived.map_err(failed)?.into())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.jwk.kid).finish()
    }
}

impl Signer {
    /// Signs with `key`, and publishes `further` keys beside it: the former one, the next one.
    ///
    /// # Errors
    ///
    /// If there are more than [`KEYS_MAX`] keys, or one is given twice.
    pub fn new(
        issuer: PublicUrl,
        key: SigningKey,
        further: Vec<SigningKey>,
    ) -> Result<Self, KeyError> {
        if further.len() >= KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let signer = Self { issuer, key, further };
        let mut kids: Vec<_> = signer.keys().map(SigningKey::kid).collect();
        kids.sort_unstable();
        match kids.array_windows().find(|[a, b]| a == b) {
            Some([twice, _]) => Err(KeyError::Twice((*twice).to_owned())),
            None => Ok(signer),
        }
    }

    /// The URL of the service: issuer of its tokens.
    #[must_use]
    pub const fn issuer(&self) -> &PublicUrl {
        &self.issuer
    }

    /// The id of the key that signs.
    #[must_use]
    pub fn key_id(&self) -> &str {
        self.key.kid()
    }

    /// The published keys (RFC 7517, section 5), the one that signs first. Media type `application/jwk-set+json`.
    #[must_use]
    pub fn jwks(&self) -> String {
        let keys: Vec<_> = self.keys().map(|key| &key.jwk).collect();
        serde_json::json!({ "keys": keys }).to_string()
    }

    /// The token for one attempt to deliver this event to this sink, for a subscription of this group.
    ///
    /// # Errors
    ///
    /// If the system has no random numbers.
    pub fn sign(
        &self,
        sink: &Sink,
        group: &str,
        event: &Event,
        now: UnixMillis,
    ) -> Result<Token, SignError> {
        let header = Header { typ: TOKEN_TYPE, alg: self.key.jwk.alg, kid: self.key.kid() };
        let body = digest::digest(&digest::SHA256, event.data());
        let claims = Claims {
            iss: self.issuer.as_str(),
            sub: format!("webhook:{group}"),
            aud: sink.origin(),
            iat: now.seconds(),
            exp: now.after(TOKEN_LIFETIME).seconds(),
            jti: event.id(),
            webhook: Webhook { digest: format!("sha256:{}", HEXLOWER.encode(body.as_ref())) },
        };
        let text = self.signed(&header, &claims)?;
        let mut value = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| SignError)?;
        value.set_sensitive(true);
        Ok(Token(value))
    }

    /// A token of another type with these claims, in the compact form. `typ` is its media type, without `application/`.
    ///
    /// # Errors
    ///
    /// If the claims are no JSON, or the system has no random numbers.
    pub fn sign_claims(&self, typ: &str, claims: &impl Serialize) -> Result<String, SignError> {
        let header = Header { typ, alg: self.key.jwk.alg, kid: self.key.kid() };
        self.signed(&header, claims)
    }

    fn signed(&self, header: &Header<'_>, claims: &impl Serialize) -> Result<String, SignError> {
        let mut text = String::new();
        encode(header, &mut text)?;
        text.push('.');
        encode(claims, &mut text)?;
        let signature = self.key.sign(text.as_bytes())?;
        text.push('.');
        BASE64URL_NOPAD.encode_append(signature.as_ref(), &mut text);
        Ok(text)
    }

    /// Keys for HMAC-SHA256 for one purpose, that of the key which signs first.
    pub(crate) fn derive(&self, purpose: &[u8]) -> Result<Vec<hmac::Key>, KeyError> {
        self.keys().map(|key| key.derive(purpose)).collect()
    }

    fn keys(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&self.key).chain(&self.further)
    }
}

impl Token {
    /// The value of the header `Authorization`.
    #[must_use]
    pub const fn authorization(&self) -> &HeaderValue {
        &self.0
    }
}

/// Of version 1 of PKCS#8, which every tool reads.
fn new_ed25519() -> Result<Document, KeyError> {
    Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| KeyError::Random)
}

fn encode(part: &impl Serialize, text: &mut String) -> Result<(), SignError> {
    let json = serde_json::to_vec(part).map_err(|_| SignError)?;
    BASE64URL_NOPAD.encode_append(&json, text);
    Ok(())
}

#[derive(Serialize)]
struct Header<'a> {
    typ: &'a str,
    alg: &'a str,
    kid: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: String,
    aud: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
    webhook: Webhook,
}

#[derive(Serialize)]
struct Webhook {
    digest: String,
}

/// The public part of a key (RFC 7518, section 6.2, and RFC 8037, section 2).
#[derive(Debug, Serialize)]
struct Jwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    kid: String,
}

impl Jwk {
    fn ed25519(point: &[u8]) -> Self {
        let x = BASE64URL_NOPAD.encode(point);
        let kid = thumbprint(&format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
        Self { kty: "OKP", crv: "Ed25519", x, y: None, usage: "sig", alg: "EdDSA", kid }
    }

    /// Of an uncompressed point: 4, then 32 bytes each of x and y.
    fn p256(point: &[u8]) -> Option<Self> {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
        let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
        let kid = thumbprint(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#));
        Some(Self { kty: "EC", crv: "P-256", x, y: Some(y), usage: "sig", alg: "ES256", kid })
    }
}

/// Of the required members, sorted, without spaces (RFC 7638, section 3).
fn thumbprint(members: &str) -> String {
    BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, members.as_bytes()).as_ref())
}
