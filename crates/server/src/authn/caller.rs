//! The caller of a call: the operator, an identity, or nobody known.
//!
//! ```text
//! management socket ─▶ operator
//! x-capstan-caller with a client certificate ─▶ identity, if the certificate is its own
//! Authorization, with x-capstan-caller or without ─▶ identity that the token or secret proves
//! x-capstan-caller, if it is trusted ─▶ identity, as the header names it
//! everything else ─▶ nobody
//! ```
//!
//! **Invariants**: a source of identity that is malformed is refused, never ignored, and so are two. Nothing here looks at the
//! policy: whether an identity is registered and enabled is asked of the snapshot that the call is judged on, and whether a
//! certificate, token or secret is its own of the store (`callers`).

use std::net::IpAddr;

use capstan_engine::{PathBuf, Timestamp};
use capstan_iam::{Actor, check_email};
use tonic::codegen::http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use tonic::codegen::http::uri::{Authority, Uri};

use super::guesses::Place;
use super::remembered::Remembered;
use super::secrets::ProvedBy;
use crate::RequestError;
use crate::transport::connection::Remote;
use crate::transport::tls::{ClientCertificate, Names};

/// The metadata that names the identity of the caller (contract, section 6).
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-capstan-caller");
/// The metadata with an e-mail address that counts as verified.
pub(crate) const CALLER_EMAIL: HeaderName = HeaderName::from_static("x-capstan-caller-email");

/// The caller of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Who calls.
    pub(crate) kind: CallerKind,
    /// Where the call came from, for the audit log: an IP address, or `unix`.
    pub(crate) source: String,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallerKind {
    /// Whoever holds the machine: the peer of the management socket.
    Operator,
    /// An identity, which may be unregistered or disabled.
    Identity {
        /// Its path.
        path: PathBuf,
        /// An e-mail address that is verified to be the identity's.
        email: Option<String>,
        /// What proves it.
        proof: Proof,
    },
    /// Nobody that the server knows.
    Nobody,
}

/// What proves an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The header itself, which is trusted.
    Header,
    /// A client certificate with the SPIFFE ID or DNS name of the identity.
    Certificate {
        /// With that name.
        certificate: ClientCertificate,
        /// The revision that the identity had it at.
        revision: u64,
    },
    /// A signed token.
    Token(Box<Remembered>),
    /// A secret that Capstan has made, such as a pull token.
    Secret(ProvedBy),
}

/// What a call says of its caller, before the store was asked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// There is nothing to ask.
    Settled(CallerKind),
    /// An identity, whose SPIFFE ID or DNS name this client certificate must have.
    Certificate {
        /// Its path.
        path: PathBuf,
        /// Which has a name.
        certificate: ClientCertificate,
    },
    /// Whom the `Authorization` header proves.
    Authorization {
        /// The header.
        header: Box<str>,
        /// The identity that it must prove, if the call names one.
        named: Option<PathBuf>,
        /// Where it comes from.
        place: Place,
    },
}

impl std::fmt::Debug for Claim {
    /// Without the credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Settled(kind) => f.debug_tuple("Settled").field(kind).finish(),
            Self::Certificate { path, .. } => f.debug_tuple("Certificate").field(path).finish(),
            Self::Authorization { named, .. } => {
                f.debug_tuple("Authorization").field(named).finish()
            }
        }
    }
}

impl CallerKind {
    /// How the caller was identified, for the audit log.
    pub(crate) fn authentication(&self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Identity { proof: Proof::Header, .. } => "caller-header",
            Self::Identity { proof: Proof::Certificate { .. }, .. } => "client-certificate",
            Self::Identity { proof: Proof::Token(token), .. } => {
                if token.verified.issued.is_some() { "access-token" } else { "token" }
            }
            Self::Identity { proof: Proof::Secret(_), .. } => "secret",
            Self::Nobody => "",
        }
    }

    /// Who acts; `None` for nobody. Whether it is registered and enabled is asked of the state.
    pub(crate) fn actor(self) -> Option<Actor> {
        match self {
            Self::Operator => Some(Actor::Operator),
            Self::Identity { path: id, email, proof } => {
                let (session, narrowing) = match proof {
                    Proof::Token(token) => {
                        let narrowing = token.narrowing().cloned();
                        (token.session, narrowing)
                    }
                    Proof::Header | Proof::Certificate { .. } | Proof::Secret(_) => (None, None),
                };
                Some(Actor::Identity { id, email, session, narrowing })
            }
            Self::Nobody => None,
        }
    }

    /// The time from which the credential counts no more, whatever changes; `None` if it does not end by itself.
    pub(crate) fn counts_until(&self) -> Option<Timestamp> {
        match self {
            Self::Identity { proof: Proof::Token(token), .. } => Some(token.counts_until),
            other => other.expires_at(),
        }
    }

    /// Whether the credential is held to less than its identity can.
    pub(crate) fn is_narrowed(&self) -> bool {
        matches!(self, Self::Identity { proof: Proof::Token(token), .. } if token.narrowing().is_some())
    }

    /// Waits until a credential counts no more that does not end by itself and that the store does not know of.
    pub(crate) async fn refused(&self) {
        match self {
            Self::Identity { proof: Proof::Certificate { certificate, .. }, .. } => {
                certificate.refused().await;
            }
            _ => std::future::pending().await,
        }
    }

    /// When the credential ends; `None` if it does not end by itself.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Identity { proof: Proof::Token(token), .. } => Some(token.expires_at),
            Self::Identity { proof: Proof::Secret(secret), .. } => secret.expires_at,
            _ => None,
        }
    }
}

/// How callers are identified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Authentication {
    /// Whether the metadata [`CALLER`] is trusted.
    pub(crate) trust_caller_header: bool,
}

impl Authentication {
    /// The caller of a management call, as it says.
    ///
    /// # Errors
    ///
    /// A field that names the caller's header: it is sent over the management socket, from a web page, under another
    /// name of this machine, twice, or is no path; or an address comes with a certificate or a token.
    /// [`RequestError::AuthnFailed`]: two proofs.
    pub(crate) fn caller(
        self,
        (remote, certificate): (Option<&Remote>, Option<&ClientCertificate>),
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Claim, RequestError> {
        let kind = match remote {
            Some(Remote::Operator(_)) => {
                for name in [CALLER, CALLER_EMAIL, AUTHORIZATION] {
                    if headers.contains_key(&name) {
                        let problem =
                            "the caller of the management socket is the operator: leave it out";
                        return Err(RequestError::field(name.as_str(), problem));
                    }
                }
                CallerKind::Operator
            }
            Some(_) if certificate.is_some() => return by_certificate(certificate, headers),
            Some(remote) if self.trusts_header(*remote) && headers.contains_key(CALLER) => {
                // One of them would have to count more than the other.
                if headers.contains_key(AUTHORIZATION) {
                    return Err(RequestError::AuthnFailed);
                }
                by_header(uri, headers)?
            }
            Some(_) if headers.contains_key(AUTHORIZATION) => {
                return by_authorization(remote, headers);
            }
            Some(remote) if self.trusts_header(*remote) => by_header(uri, headers)?,
            Some(_) | None => CallerKind::Nobody,
        };
        Ok(Claim::Settled(kind))
    }

    fn trusts_header(self, remote: Remote) -> bool {
        self.trust_caller_header && remote.is_of_this_machine()
    }
}

/// The identity that the header names and the certificate must prove. Without the header the certificate is nobody's: several
/// identities, of several organizations, may have the same (R13 of the privilege rules: what is no root identity with a literal
/// subject is reached only by naming it).
fn by_certificate(
    certificate: Option<&ClientCertificate>,
    headers: &HeaderMap,
) -> Result<Claim, RequestError> {
    if headers.contains_key(&CALLER_EMAIL) {
        let problem = "a client certificate verifies no address: leave it out";
        return Err(RequestError::field(CALLER_EMAIL.as_str(), problem));
    }
    // Two proofs, of whom each could be another one's.
    if headers.contains_key(AUTHORIZATION) {
        return Err(RequestError::AuthnFailed);
    }
    let certificate = certificate.filter(|certificate| *certificate.names() != Names::Nobody);
    let (Some(path), Some(certificate)) = (text(headers, &CALLER)?, certificate) else {
        return Ok(Claim::Settled(CallerKind::Nobody));
    };
    let path = path.parse().map_err(|error| RequestError::field(CALLER.as_str(), error))?;
    Ok(Claim::Certificate { path, certificate: certificate.clone() })
}

/// The identity that a token or a secret must prove: the one that the caller's header names, if it is there.
///
/// # Errors
///
/// As [`Authentication::caller`].
pub(crate) fn by_authorization(
    remote: Option<&Remote>,
    headers: &HeaderMap,
) -> Result<Claim, RequestError> {
    if headers.contains_key(&CALLER_EMAIL) {
        let problem = "a token says its own address: leave it out";
        return Err(RequestError::field(CALLER_EMAIL.as_str(), problem));
    }
    // What is wrong with a credential is never told.
    let header = text(headers, &AUTHORIZATION).map_err(|_| RequestError::AuthnFailed)?;
    let header = header.unwrap_or_default().into();
    let named = text(headers, &CALLER)?.map(str::parse).transpose();
    let named = named.map_err(|error| RequestError::field(CALLER.as_str(), error))?;
    Ok(Claim::Authorization { header, named, place: Place::of(remote) })
}

/// The identity that the headers name.
fn by_header(uri: &Uri, headers: &HeaderMap) -> Result<CallerKind, RequestError> {
    let path = text(headers, &CALLER)?;
    let email = text(headers, &CALLER_EMAIL)?;
    let Some(path) = path else {
        if email.is_some() {
            let problem = format!("there is no {CALLER}: send both");
            return Err(RequestError::field(CALLER_EMAIL.as_str(), problem));
        }
        return Ok(CallerKind::Nobody);
    };
    let refused = |problem: &str| RequestError::field(CALLER.as_str(), problem);
    // A web page in a browser of this machine can reach loopback addresses, too. A browser says `Origin`, or the name
    // by which the page has found the address.
    if headers.contains_key(ORIGIN) {
        return Err(refused("not with an Origin: web pages may not say who calls"));
    }
    if !is_called_by_loopback_name(uri, headers) {
        return Err(refused("only if :authority is localhost or a loopback address"));
    }
    let path = path.parse().map_err(|error| RequestError::field(CALLER.as_str(), error))?;
    if let Some(email) = email {
        check_email(email).map_err(|expected| {
            RequestError::field(CALLER_EMAIL.as_str(), format!("expected {expected}"))
        })?;
    }
    Ok(CallerKind::Identity { path, email: email.map(Into::into), proof: Proof::Header })
}

/// The value of a header; `None` if it is absent.
///
/// # Errors
///
/// It is there twice, or is not text.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, RequestError> {
    let refused = |problem: &str| RequestError::field(name.as_str(), problem);
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| refused("not visible ASCII characters"))
        }
        (Some(_), Some(_)) => Err(refused("there twice: send it once")),
    }
}

/// Whether the caller called this server `localhost` or a loopback address, in `:authority` and, if it is there, `Host`.
fn is_called_by_loopback_name(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = headers.get_all(HOST).iter().map(|host| Authority::try_from(host.as_bytes()).ok());
    let mut names = uri.authority().cloned().map(Some).into_iter().chain(host).peekable();
    let is_named = names.peek().is_some();
    is_named && names.all(|name| name.is_some_and(|name| is_loopback_name(&name)))
}

fn is_loopback_name(authority: &Authority) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address: Result<IpAddr, _> = address.parse();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use capstan_iam::limits::EMAIL_BYTES_MAX;
    use tonic::codegen::http::HeaderValue;

    use super::*;

    const TRUSTING: Authentication = Authentication { trust_caller_header: true };

    fn local() -> Remote {
        Remote::Ip("127.0.0.1:1".parse().unwrap())
    }

    /// The caller of a request to this authority with these headers; or the field that is refused.
    fn caller(
        remote: Remote,
        authority: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<CallerKind, String> {
        let uri = format!("http://{authority}/x").parse().unwrap();
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let value = tonic::codegen::http::HeaderValue::from_str(value).unwrap();
            all.append(*name, value);
        }
        match TRUSTING.caller((Some(&remote), None), &uri, &all) {
            Ok(Claim::Settled(kind)) => Ok(kind),
            Ok(other) => panic!("{other:?}"),
            Err(RequestError::Field { field, .. }) => Err(field),
            Err(other) => panic!("{other}"),
        }
    }

    fn alice(email: Option<&str>) -> CallerKind {
        let path = "acme/alice".parse().unwrap();
        CallerKind::Identity { path, email: email.map(Into::into), proof: Proof::Header }
    }

    const ALICE: (&str, &str) = ("x-capstan-caller", "acme/alice");
    const EMAIL: &str = "x-capstan-caller-email";

    #[test]
    fn the_header_names_the_caller() {
        assert_eq!(caller(local(), "localhost", &[ALICE]), Ok(alice(None)));
        assert_eq!(
            caller(local(), "127.0.0.1:4480", &[ALICE, (EMAIL, "a@example.com")]),
            Ok(alice(Some("a@example.com")))
        );
        assert_eq!(caller(Remote::Process(None), "localhost", &[ALICE]), Ok(alice(None)));
        assert_eq!(caller(local(), "localhost", &[]), Ok(CallerKind::Nobody));
        let elsewhere = Remote::Ip("192.0.2.1:1".parse().unwrap());
        assert_eq!(caller(elsewhere, "localhost", &[ALICE]), Ok(CallerKind::Nobody));
        let untrusting = Authentication { trust_caller_header: false };
        let headers = [(CALLER, "acme/alice".parse().unwrap())].into_iter().collect();
        let found = untrusting.caller(
            (Some(&local()), None),
            &"http://localhost/".parse().unwrap(),
            &headers,
        );
        assert_eq!(found.unwrap(), Claim::Settled(CallerKind::Nobody));
    }

    /// From anywhere, and whether the header is trusted or not: a certificate that is there must prove the caller.
    #[test]
    fn a_certificate_must_prove_whom_the_header_names() {
        let id = "spiffe://acme.example/ci";
        let certificate = ClientCertificate::named(Some(id));
        let elsewhere = Remote::Ip("192.0.2.1:1".parse().unwrap());
        for trust_caller_header in [false, true] {
            for remote in [elsewhere, local()] {
                let caller = |headers: &[(HeaderName, &'static str)]| {
                    let of = |(name, value): &(HeaderName, &'static str)| {
                        (name.clone(), HeaderValue::from_static(value))
                    };
                    let headers = headers.iter().map(of).collect();
                    let connection = (Some(&remote), Some(&certificate));
                    let uri = Uri::from_static("https://capstan.example/x");
                    Authentication { trust_caller_header }.caller(connection, &uri, &headers)
                };
                let path = "acme/ci".parse().unwrap();
                let claim = Claim::Certificate { path, certificate: certificate.clone() };
                assert_eq!(caller(&[(CALLER, "acme/ci")]).unwrap(), claim);
                assert_eq!(caller(&[]).unwrap(), Claim::Settled(CallerKind::Nobody));
                // One proof, and no other beside it.
                let token = (AUTHORIZATION, "Bearer x.y.z");
                for headers in [&[token.clone()][..], &[(CALLER, "acme/ci"), token]] {
                    assert!(matches!(caller(headers), Err(RequestError::AuthnFailed)));
                }
                assert!(caller(&[(CALLER, "/")]).is_err());
                let email = [(CALLER, "acme/ci"), (CALLER_EMAIL, "a@example.com")];
                assert!(caller(&email).is_err());
                // One without a name is nobody's, and does not leave the header to be trusted.
                let nobody = ClientCertificate::named(None);
                let headers = [(CALLER, HeaderValue::from_static("acme/ci"))];
                let connection = (Some(&remote), Some(&nobody));
                let found = Authentication { trust_caller_header }.caller(
                    connection,
                    &Uri::from_static("http://localhost/x"),
                    &headers.into_iter().collect(),
                );
                assert_eq!(found.unwrap(), Claim::Settled(CallerKind::Nobody));
            }
        }
    }

    #[test]
    fn an_authorization_is_one_proof_of_whom_is_named() {
        let elsewhere = Remote::Ip("192.0.2.1:1".parse().unwrap());
        let caller = |trusts: bool, remote: Remote, headers: &[(HeaderName, &'static str)]| {
            let mut all = HeaderMap::new();
            for (name, value) in headers {
                all.append(name.clone(), HeaderValue::from_static(value));
            }
            let authentication = Authentication { trust_caller_header: trusts };
            authentication.caller(
                (Some(&remote), None),
                &Uri::from_static("http://localhost/x"),
                &all,
            )
        };
        let token = (AUTHORIZATION, "Bearer x.y.z");
        let claim = |remote: Remote, named: Option<&str>| {
            let named = named.map(|path| path.parse().unwrap());
            let place = Place::of(Some(&remote));
            Claim::Authorization { header: "Bearer x.y.z".into(), named, place }
        };
        for (trusts, remote) in
            [(false, elsewhere), (true, elsewhere), (false, local()), (true, local())]
        {
            let claimed = caller(trusts, remote, std::slice::from_ref(&token)).unwrap();
            assert_eq!(claimed, claim(remote, None));
            let twice = [token.clone(), token.clone()];
            assert!(matches!(caller(trusts, remote, &twice), Err(RequestError::AuthnFailed)));
            let email = [token.clone(), (CALLER_EMAIL, "a@example.com")];
            assert!(caller(trusts, remote, &email).is_err());
            let named = [token.clone(), (CALLER, "acme/ci")];
            match trusts && remote.is_of_this_machine() {
                // The header would be believed by itself, so it and the token are two.
                true => assert!(matches!(
                    caller(trusts, remote, &named),
                    Err(RequestError::AuthnFailed)
                )),
                false => {
                    let claimed = caller(trusts, remote, &named).unwrap();
                    assert_eq!(claimed, claim(remote, Some("acme/ci")));
                }
            }
            assert!(caller(trusts, remote, &[token.clone(), (CALLER, "/")]).is_err());
        }
        let operator = Remote::Operator(None);
        assert!(matches!(caller(false, operator, &[token]), Err(RequestError::Field { .. })));
    }

    #[test]
    fn a_malformed_or_repeated_header_is_refused() {
        let refused = Err("x-capstan-caller".to_owned());
        for headers in [
            &[ALICE, ALICE][..],
            &[("x-capstan-caller", "")],
            &[("x-capstan-caller", "/acme")],
            &[("x-capstan-caller", "acme/alice ")],
            &[("x-capstan-caller", "acme/\u{e4}")],
            &[ALICE, ("origin", "http://localhost")],
            &[ALICE, ("origin", "null")],
        ] {
            assert_eq!(caller(local(), "localhost", headers), refused, "{headers:?}");
        }
        let refused = Err(EMAIL.to_owned());
        let long = format!("{}@x", "a".repeat(EMAIL_BYTES_MAX));
        for headers in [
            &[(EMAIL, "a@example.com")][..],
            &[ALICE, (EMAIL, "")],
            &[ALICE, (EMAIL, "a")],
            &[ALICE, (EMAIL, "@x")],
            &[ALICE, (EMAIL, "a b@x")],
            &[ALICE, (EMAIL, &long)],
            &[ALICE, (EMAIL, "a@x"), (EMAIL, "b@x")],
        ] {
            assert_eq!(caller(local(), "localhost", headers), refused, "{headers:?}");
        }
        let longest = &long[long.len() - EMAIL_BYTES_MAX..];
        assert_eq!(
            caller(local(), "localhost", &[ALICE, (EMAIL, longest)]),
            Ok(alice(Some(longest)))
        );
    }

    #[test]
    fn only_names_of_this_machine_are_trusted() {
        for authority in
            ["LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]:4480", "[::ffff:127.0.0.1]"]
        {
            assert_eq!(caller(local(), authority, &[ALICE]), Ok(alice(None)), "{authority}");
        }
        let refused = Err("x-capstan-caller".to_owned());
        for authority in [
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1:4480",
            "[::]:4480",
            "0.0.0.0",
            "user@localhost",
        ] {
            assert_eq!(caller(local(), authority, &[ALICE]), refused, "{authority}");
        }
        let host = ("host", "evil.example");
        assert_eq!(caller(local(), "localhost", &[ALICE, host]), refused);
        assert_eq!(caller(local(), "localhost", &[ALICE, ("host", "localhost")]), Ok(alice(None)));
        // Without any name nothing is trusted.
        let headers = [(CALLER, "acme/alice".parse().unwrap())].into_iter().collect();
        let uri = Uri::from_static("/x");
        assert!(TRUSTING.caller((Some(&local()), None), &uri, &headers).is_err());
    }

    #[test]
    fn the_operator_needs_no_header_and_may_send_none() {
        let operator = Remote::Operator(Some(1));
        assert_eq!(caller(operator, "localhost", &[]), Ok(CallerKind::Operator));
        assert_eq!(caller(operator, "localhost", &[ALICE]), Err("x-capstan-caller".into()));
        assert_eq!(caller(operator, "x", &[(EMAIL, "a@x")]), Err(EMAIL.into()));
        assert_eq!(operator.to_string(), "unix");
        assert_eq!(Remote::Ip("[::ffff:127.0.0.1]:7".parse().unwrap()).to_string(), "127.0.0.1");
    }
}
