//! Groups of options of `serve`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use capstan_events::{Policy, PublicUrl};
use capstan_server::callers::{self, TrustedIssuer};
use capstan_server::limits::{AUDIT_RECORDS_MAX, Limits, QUOTAS, Quotas};
use capstan_server::server::TlsOptions;
use capstan_server::signing::{self, KeyFolder};
use capstan_server::webhooks;
use clap::builder::PossibleValuesParser;

/// The folder of signing keys in the directory of a store.
pub(crate) const KEYS: &str = "keys";
/// How many days a signing key signs.
const KEY_DAYS: u16 = 30;

/// Files of TLS. They are loaded again when they change.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsArgs {
    /// The certificate, in PEM, followed by those between it and an authority: the TCP addresses of gRPC speak TLS 1.3, and so
    /// does the HTTP address
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Its private key, in PEM, which others may not read
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Authorities, in PEM: clients must present a certificate of one of them
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) client_ca: Option<PathBuf>,

    /// Lists of revoked certificates, in PEM, one of each of these authorities: a client whose certificate is on its list, or whose list is
    /// missing or expired, is refused; repeat for several
    #[arg(long, value_name = "FILE", requires = "client_ca")]
    client_crl: Vec<PathBuf>,
}

impl TlsArgs {
    pub(super) fn options(self) -> Option<TlsOptions> {
        let (certificate, key) = self.tls_cert.zip(self.tls_key)?;
        Some(TlsOptions {
            certificate,
            key,
            client_authorities: self.client_ca,
            revocations: self.client_crl,
        })
    }
}

/// Who may ask for decisions. Callers of this machine may, unless the document names them, too.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Callers of decisions")]
pub(super) struct AskerArgs {
    /// Name who may ask from other machines, what, and about which part of the tree: a document, see `capstan schema callers`
    /// [default: whoever has a certificate of --client-ca]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_open_decisions")]
    pub(super) callers: Option<PathBuf>,

    /// Let whoever can reach the server ask about everybody
    #[arg(long)]
    pub(super) insecure_open_decisions: bool,
}

/// Whose tokens prove who calls what manages a store. Providers of organizations are part of the store.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Callers with tokens")]
pub(super) struct TokenArgs {
    /// An issuer of OpenID Connect whose tokens prove people in every organization: its https URL, whose keys are discovered,
    /// or URL,FILE with its keys as a JSON Web Key Set; repeat for several
    #[arg(long, value_name = "URL[,FILE]", value_parser = trusted_issuer, conflicts_with_all = ["policy", "demo"])]
    trust_issuer: Vec<TrustedIssuer>,

    /// The algorithms that tokens of trusted issuers may be signed with [default: whatever the keys are for]
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',', requires = "trust_issuer",
          value_parser = PossibleValuesParser::new(capstan_iam::ALGORITHM_NAMES), conflicts_with_all = ["policy", "demo"])]
    trust_algorithms: Vec<String>,

    /// An audience (`aud`) that tokens for this server have; repeat for several [default: that of --public-url]
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["policy", "demo"])]
    token_audience: Vec<String>,
}

fn trusted_issuer(text: &str) -> Result<TrustedIssuer, String> {
    let (issuer, keys) = match text.split_once(',') {
        Some((issuer, file)) => (issuer, Some(PathBuf::from(file))),
        None => (text, None),
    };
    capstan_iam::check_issuer(issuer).map_err(|expected| format!("expected {expected}"))?;
    Ok(TrustedIssuer { issuer: issuer.to_owned(), keys })
}

impl TokenArgs {
    pub(super) fn options(self, public_url: Option<&PublicUrl>) -> callers::Options {
        let audiences = match self.token_audience {
            none if none.is_empty() => public_url.iter().map(|url| url.as_str().into()).collect(),
            audiences => audiences,
        };
        let (trusted, algorithms) = (self.trust_issuer, self.trust_algorithms);
        callers::Options { trusted, algorithms, audiences }
    }
}

/// What a store may hold, and how fast it may be changed. Refusals name the quota that is used up.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Limits of a store")]
pub(super) struct OfStore {
    /// Objects of an organization; also the operator makes no more
    #[arg(long, value_name = "OBJECTS", default_value_t = QUOTAS.organization_objects,
          value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "policy")]
    quota_organization_objects: u64,

    /// Objects that one caller has made and that are still there
    #[arg(long, value_name = "OBJECTS", default_value_t = QUOTAS.creator_objects,
          value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "policy")]
    quota_caller_objects: u64,

    /// Changes in an organization in a minute
    #[arg(long, value_name = "CHANGES", default_value_t = QUOTAS.organization_changes,
          value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "policy")]
    quota_organization_changes: u32,

    /// Changes that one caller asks for in a minute
    #[arg(long, value_name = "CHANGES", default_value_t = QUOTAS.creator_changes,
          value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "policy")]
    quota_caller_changes: u32,

    /// Audit records to keep; the oldest of more are deleted
    #[arg(long, value_name = "RECORDS", default_value_t = AUDIT_RECORDS_MAX,
          value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "policy")]
    audit_records: u64,
}

impl OfStore {
    pub(super) const fn limits(self, limits: Limits) -> Limits {
        let quotas = Quotas {
            organization_objects: self.quota_organization_objects,
            creator_objects: self.quota_caller_objects,
            organization_changes: self.quota_organization_changes,
            creator_changes: self.quota_caller_changes,
        };
        Limits { quotas, audit_records_max: self.audit_records, ..limits }
    }
}

/// Where events of a store are delivered, and who they say sends them. Without a URL none are.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "AuthZEN, and events of a store")]
pub(super) struct WebhookArgs {
    /// The https URL under which this server is known: the base of the metadata of AuthZEN, the source of events, and the
    /// issuer of what they are signed with. Receivers read the keys at URL/.well-known/jwks.json, which the HTTP address serves
    #[arg(long, value_name = "URL", value_parser = public_url)]
    pub(super) public_url: Option<PublicUrl>,

    /// The private keys that events and access tokens are signed with: a folder of PEM files of Ed25519 or P-256, for their owner
    /// only, each named by the time from which it signs; made if it is not there. `capstan keys` shows and changes them
    /// [default: DIR/keys]
    #[arg(long, value_name = "FOLDER", requires_all = ["public_url", "data"], conflicts_with_all = ["policy", "demo"])]
    signing_keys: Option<PathBuf>,

    /// How many days a key signs before the server makes the next one; 0 for ever
    #[arg(long, value_name = "DAYS", default_value_t = KEY_DAYS, value_parser = clap::value_parser!(u16).range(..=3650))]
    rotate_keys: u16,

    /// A network that sinks may be in although its addresses are not public, such as 10.1.0.0/16; repeat for several
    #[arg(long, value_name = "CIDR", requires_all = ["public_url", "data"], conflicts_with_all = ["policy", "demo"], value_parser = network)]
    webhook_allow: Vec<String>,

    /// Certificates of authorities, in PEM, that sinks are trusted by, beside those of the system
    #[arg(long, value_name = "FILE", requires_all = ["public_url", "data"], conflicts_with_all = ["policy", "demo"])]
    webhook_ca: Option<PathBuf>,
}

/// A network, as text: all together they are judged again.
fn network(text: &str) -> Result<String, String> {
    Policy::parse([text]).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn public_url(text: &str) -> Result<PublicUrl, String> {
    PublicUrl::parse(text).map_err(|error| error.to_string())
}

impl WebhookArgs {
    /// # Errors
    ///
    /// A network that is none.
    pub(super) fn options(self, data: Option<&Path>) -> anyhow::Result<Option<webhooks::Options>> {
        let (Some(public_url), Some(data)) = (self.public_url, data) else { return Ok(None) };
        let policy = Policy::parse(&self.webhook_allow).context("--webhook-allow")?;
        let folder = KeyFolder::new(self.signing_keys.unwrap_or_else(|| data.join(KEYS)));
        let days = Duration::from_secs(u64::from(self.rotate_keys) * 24 * 60 * 60);
        let keys = signing::Options { folder, rotated: Some(days).filter(|days| !days.is_zero()) };
        Ok(Some(webhooks::Options { public_url, keys, policy, ca: self.webhook_ca }))
    }
}
