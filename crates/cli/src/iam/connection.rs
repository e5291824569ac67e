//! A server as a caller, and the calls to it: who calls, and what is repeated.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use capstan_client::{Credential, ServerAddress};
use capstan_proto::contract::{RETRY_PUSHBACK_KEY, WARNING_KEY};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use super::refusal::Refusal;
use crate::limits::{CALL_TIMEOUT, RETRIES_MAX, RETRY_WAIT, RETRY_WAIT_MAX};
use crate::logins::{self, Refresh};
use crate::{channel, completion, context, output, tls};

/// The metadata key of the caller's identity (contract, section 6).
const CALLER_KEY: &str = "x-capstan-caller";
/// The metadata key of the caller's verified address.
const EMAIL_KEY: &str = "x-capstan-caller-email";

/// The metadata key of a token.
const AUTHORIZATION_KEY: &str = "authorization";

/// Their heading in help texts.
const SERVER: &str = "Server";

/// The options that say which server is asked, and as whom.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ServerArgs {
    /// Ask the server at this address: http://HOST:PORT, https://HOST:PORT or unix:PATH
    /// [default: that of --context, $CAPSTAN_ADDR, that of `capstan context use`, or http://127.0.0.1:4480]
    #[arg(long, value_name = "URL", help_heading = SERVER)]
    pub(crate) addr: Option<String>,

    /// The identity that calls: a client certificate or a token proves it, or the server trusts the caller header [default: that
    /// of the context]
    #[arg(long = "as", id = "as_identity", value_name = "IDENTITY", help_heading = SERVER,
        add = completion::managed::identity())]
    pub(crate) caller: Option<String>,

    /// The verified e-mail address of the identity that calls
    #[arg(long = "as-email", value_name = "ADDRESS", requires = "as_identity", help_heading = SERVER)]
    pub(crate) email: Option<String>,

    /// A file with the token that proves who calls: of an issuer that the server believes, or a pull token [default: that of the
    /// context, or what `capstan auth login` has kept for the server]
    #[arg(long, value_name = "FILE", help_heading = SERVER)]
    pub(crate) token_file: Option<PathBuf>,

    /// Whether the kept login is refreshed if it is over.
    #[arg(skip)]
    pub(crate) refresh: Refresh,
}

/// The options of a write.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct WriteArgs {
    /// Check everything and say what would be done, and change nothing
    #[arg(long)]
    validate_only: bool,

    /// Makes a repetition of this command safe for 10 minutes: with the same id, and all other options the same, it is
    /// done once [default: a random one]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What every write sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Write {
    pub(crate) request_id: String,
    pub(crate) validate_only: bool,
    /// Whether the request id was given, so that the server may have done this already.
    is_given: bool,
    /// What a repetition must say, beside what this command says, to be the same request: `--etag 7`.
    repeat_with: Vec<String>,
}

impl Write {
    /// Whether the server may have done this already.
    pub(crate) fn may_be_repeated(&self) -> bool {
        self.is_given
    }

    /// # Errors
    ///
    /// The request id is given, and with this option another run of the command may send another request: `instead` is
    /// what makes them the same.
    pub(crate) fn ensure_first(&self, option: &str, instead: &str) -> anyhow::Result<()> {
        ensure!(
            !self.is_given,
            "--request-id with {option}: a repetition could be another request; give {instead}"
        );
        Ok(())
    }

    /// Notes what a repetition must say to be the same request.
    pub(crate) fn repeat_with(&mut self, option: String) {
        self.repeat_with.push(option);
    }
}

impl WriteArgs {
    /// The write, and the server that it is sent to.
    ///
    /// # Errors
    ///
    /// As of [`WriteArgs::write`] and [`ServerArgs::connect`].
    pub(crate) async fn open(&self) -> anyhow::Result<(Write, Connection)> {
        Ok((self.write()?, self.server.connect().await?))
    }

    /// # Errors
    ///
    /// The system has no randomness.
    pub(crate) fn write(&self) -> anyhow::Result<Write> {
        let request_id = match &self.request_id {
            Some(id) => id.clone(),
            None => random_id()?,
        };
        let is_given = self.request_id.is_some();
        let validate_only = self.validate_only;
        Ok(Write { request_id, validate_only, is_given, repeat_with: Vec::new() })
    }
}

/// 32 random hex digits.
fn random_id() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random request id: {error}"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

impl ServerArgs {
    /// # Errors
    ///
    /// No address of a server, an identity that cannot be sent, a login that is over, or no server there.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        self.connect_within(CALL_TIMEOUT).await
    }

    /// As [`ServerArgs::connect`], for calls that end after another time.
    ///
    /// # Errors
    ///
    /// As of [`ServerArgs::connect`].
    pub(crate) async fn connect_within(
        &self,
        call_timeout: Duration,
    ) -> anyhow::Result<Connection> {
        let server = context::server(self.addr.as_deref())?;
        let identity = self.caller.clone().or(server.caller);
        let mut caller = Caller::new(identity, self.email.clone())?;
        let address: ServerAddress = server.addr.parse()?;
        let files = tls::chosen().or(server.tls);
        if let Some(file) = self.token_file.as_ref().or(server.token_file.as_ref()) {
            let token = Credential::file(file);
            token.ensure_hidden_on_its_way_to(&address)?;
            caller.authorization = Some(token.authorization().context("--token-file")?);
        } else if files.cert.is_none() {
            // A call has one credential.
            caller.authorization = logins::authorization(&address, self.refresh).await?;
        }
        let channel = channel::connect(&address, &files, call_timeout).await?;
        Ok(Connection { channel, caller, address })
    }
}

/// Sends who calls with every request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    identity: Option<MetadataValue<Ascii>>,
    email: Option<MetadataValue<Ascii>>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Caller {
    /// # Errors
    ///
    /// A text that metadata cannot carry.
    pub(crate) fn new(identity: Option<String>, email: Option<String>) -> anyhow::Result<Self> {
        let value = |name, text: Option<String>| {
            let value = text.map(|text| text.parse::<MetadataValue<Ascii>>());
            value.transpose().with_context(|| format!("{name}: not visible ASCII"))
        };
        let (identity, email) = (value("--as", identity)?, value("--as-email", email)?);
        Ok(Self { identity, email, authorization: None })
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let all = [
            (CALLER_KEY, &self.identity),
            (EMAIL_KEY, &self.email),
            (AUTHORIZATION_KEY, &self.authorization),
        ];
        for (key, value) in all {
            if let Some(value) = value {
                request.metadata_mut().insert(key, value.clone());
            }
        }
        Ok(request)
    }
}

/// What may be done when a call fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Safety<'w> {
    /// A read is repeated.
    Read,
    /// A write is repeated with its request id.
    Write(&'w Write),
    /// What has no request id is not repeated. How to find out whether it was done, if its end is unknown.
    Once { find_out: &'w str },
}

/// A connected server, and who calls it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    channel: Channel,
    caller: Caller,
    pub(crate) address: ServerAddress,
}

impl Connection {
    /// What a client of a service sends through. A message from it may be as long as tonic's default, which is the
    /// server's longest ([`MESSAGE_BYTES_MAX`](crate::limits::MESSAGE_BYTES_MAX)).
    pub(crate) fn service(&self) -> InterceptedService<Channel, Caller> {
        InterceptedService::new(self.channel.clone(), self.caller.clone())
    }

    pub(crate) fn shows_a_token(&self) -> bool {
        self.caller.authorization.is_some()
    }

    /// The same for decisions, which a name alone proves nobody for: only a token is sent, and whom it is for.
    pub(crate) fn decisions(&self) -> InterceptedService<Channel, Caller> {
        let caller = if self.shows_a_token() { self.caller.clone() } else { Caller::default() };
        InterceptedService::new(self.channel.clone(), caller)
    }

    /// Sends a request, and again if the server asks for it or may be back soon: at most [`RETRIES_MAX`] times.
    ///
    /// # Errors
    ///
    /// A [`Refusal`], or the address of another protocol.
    pub(crate) async fn call<Q: Clone, T>(
        &self,
        safety: Safety<'_>,
        message: Q,
        send: impl AsyncFn(Request<Q>) -> Result<Response<T>, Status>,
    ) -> anyhow::Result<T> {
        let mut repeated = 0;
        loop {
            let status = match send(Request::new(message.clone())).await {
                Ok(response) => {
                    let warning = response.metadata().get(WARNING_KEY);
                    if let Some(warning) = warning.and_then(|warning| warning.to_str().ok()) {
                        output::note(format_args!("warning: {warning}"))?;
                    }
                    return Ok(response.into_inner());
                }
                Err(status) => status,
            };
            match wait_before_retry(&status, safety, repeated) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(self.error(&status, safety).await),
            }
            repeated += 1;
        }
    }

    /// The error of a call that is not repeated.
    pub(crate) async fn error(&self, status: &Status, safety: Safety<'_>) -> anyhow::Error {
        // Some statuses of Capstan have no details either (contract, section 7).
        let is_foreign = !channel::is_grpc(status) && status.get_details_error_info().is_none();
        if is_foreign && let Some(other) = channel::other_protocol(&self.address, status).await {
            return anyhow!(other);
        }
        let mut refusal = Refusal::of(status);
        match safety {
            Safety::Write(write) if !write.validate_only && refusal.leaves_open() => {
                let id = format!("--request-id {}", write.request_id);
                let with = std::iter::once(&id).chain(&write.repeat_with).cloned();
                refusal.advise(&format!(
                    "whether it was done is unknown: repeat the command with {} within 10 minutes",
                    with.collect::<Vec<_>>().join(" and ")
                ));
            }
            Safety::Once { find_out } if refusal.leaves_open() => {
                refusal.advise(&format!("whether it was done is unknown: {find_out}"));
            }
            Safety::Read | Safety::Write(_) | Safety::Once { .. } => {}
        }
        refusal.into()
    }
}

/// How long to wait before the same request is sent again; `None` if it is not.
pub(crate) fn wait_before_retry(
    status: &Status,
    safety: Safety<'_>,
    repeated: u32,
) -> Option<Duration> {
    let may = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
    if !may || repeated >= RETRIES_MAX || matches!(safety, Safety::Once { .. }) {
        return None;
    }
    let pushback = status.metadata().get(RETRY_PUSHBACK_KEY);
    if let Some(pushback) = pushback {
        // Negative, and what is no number: not again (gRFC A6).
        let wait = pushback.to_str().ok()?.parse().ok().map(Duration::from_millis)?;
        return (wait <= RETRY_WAIT_MAX).then_some(wait);
    }
    let info = status.get_details_error_info();
    let is_open = info.is_none_or(|info| info.reason == "COMMIT_OUTCOME_UNKNOWN");
    (status.code() == Code::Unavailable && is_open).then(|| RETRY_WAIT * 2_u32.pow(repeated))
}

/// How long to wait before a stream that ended with this status goes on, after so many failures in a row; `None` if it does
/// not. A lost connection, and a server that starts, drains or is behind, have no end of attempts: somebody starts it again.
pub(crate) fn wait_before_resume(status: &Status, failures: u32) -> Option<Duration> {
    let failures = failures.min(RETRIES_MAX - 1);
    if status.metadata().contains_key(RETRY_PUSHBACK_KEY) {
        return wait_before_retry(status, Safety::Read, failures);
    }
    // The server sends no cause, so a status that has one is of the connection.
    let is_lost = std::error::Error::source(status).is_some();
    let may = is_lost || status.code() == Code::Unavailable;
    may.then(|| RETRY_WAIT * 2_u32.pow(failures))
}

/// # Errors
///
/// The answer lacks what its schema promises: a server of another version.
pub(crate) fn present<T>(field: Option<T>, name: &str) -> anyhow::Result<T> {
    field.with_context(|| format!("the server's answer has no `{name}`: is it of another version?"))
}

/// # Errors
///
/// A server that pages for ever: its next token is that of the page itself.
pub(crate) fn next_page(token: &mut String, next: String) -> anyhow::Result<bool> {
    ensure!(next.is_empty() || next != *token, "the server sends the same page again and again");
    *token = next;
    Ok(!token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn status(code: Code, reason: &str, pushback: Option<&str>) -> Status {
        let mut status = match reason {
            "" => Status::new(code, "no"),
            reason => {
                let none = std::collections::HashMap::<String, String>::new();
                Status::with_error_details(
                    code,
                    "no",
                    ErrorDetails::with_error_info(reason, "capstan", none),
                )
            }
        };
        if let Some(value) = pushback {
            status.metadata_mut().insert(RETRY_PUSHBACK_KEY, value.parse().unwrap());
        }
        status
    }

    #[test]
    fn a_call_is_repeated_when_the_server_asks_for_it() {
        let wait = |status: &Status, repeated| wait_before_retry(status, Safety::Read, repeated);
        let asked = status(Code::Unavailable, "NOT_READY", Some("250"));
        assert_eq!(wait(&asked, 0), Some(Duration::from_millis(250)));
        assert_eq!(wait(&asked, RETRIES_MAX - 1), Some(Duration::from_millis(250)));
        assert_eq!(wait(&asked, RETRIES_MAX), None);
        assert_eq!(wait_before_retry(&asked, Safety::Once { find_out: "" }, 0), None);
        let overloaded = status(Code::ResourceExhausted, "OVERLOADED", Some("0"));
        assert_eq!(wait(&overloaded, 0), Some(Duration::ZERO));
        for (code, reason, pushback) in [
            (Code::Unavailable, "NOT_READY", Some("-1")),
            (Code::Unavailable, "NOT_READY", Some("soon")),
            (Code::Unavailable, "DISK_FULL", None),
            (Code::ResourceExhausted, "TOO_LARGE", None),
            (Code::Aborted, "CONFLICT", Some("1")),
        ] {
            assert_eq!(wait(&status(code, reason, pushback), 0), None, "{code:?} {reason}");
        }
    }

    #[test]
    fn a_server_that_asks_for_a_long_wait_is_not_asked_again() {
        let after = |wait: Duration| {
            let millis = wait.as_millis().to_string();
            let status = status(Code::ResourceExhausted, "QUOTA", Some(&millis));
            wait_before_retry(&status, Safety::Read, 0)
        };
        assert_eq!(after(RETRY_WAIT_MAX), Some(RETRY_WAIT_MAX));
        assert_eq!(after(RETRY_WAIT_MAX + Duration::from_millis(1)), None);
    }

    #[test]
    fn an_unclear_end_is_asked_again_with_growing_waits() {
        let write = Write::default();
        let wait =
            |status: &Status, repeated| wait_before_retry(status, Safety::Write(&write), repeated);
        let unknown = status(Code::Unavailable, "COMMIT_OUTCOME_UNKNOWN", None);
        let waits: Vec<_> = (0..=RETRIES_MAX).map(|repeated| wait(&unknown, repeated)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 0].map(|n| (n > 0).then(|| RETRY_WAIT * n)));
        assert_eq!(wait(&status(Code::Unavailable, "", None), 0), Some(RETRY_WAIT));
    }

    #[test]
    fn a_stream_goes_on_as_long_as_the_server_may_be_back() {
        let mut lost = Status::new(Code::Unknown, "connection reset");
        assert_eq!(wait_before_resume(&lost, 0), None);
        lost.set_source(std::sync::Arc::new(std::io::Error::other("connection reset")));
        assert_eq!(wait_before_resume(&lost, 0), Some(RETRY_WAIT));
        assert_eq!(wait_before_resume(&lost, 1_000), Some(RETRY_WAIT * 8));
        let drains = status(Code::Unavailable, "NOT_READY", None);
        assert_eq!(wait_before_resume(&drains, 2), Some(RETRY_WAIT * 4));
        let busy = status(Code::ResourceExhausted, "OVERLOADED", Some("250"));
        assert_eq!(wait_before_resume(&busy, 1_000), Some(Duration::from_millis(250)));
        let never = status(Code::Unavailable, "NOT_READY", Some("-1"));
        assert_eq!(wait_before_resume(&never, 0), None);
        for (code, reason) in [
            (Code::FailedPrecondition, "REVISION_COMPACTED"),
            (Code::PermissionDenied, "MISSING_CAPABILITY"),
            (Code::Unauthenticated, "AUTHN_FAILED"),
        ] {
            assert_eq!(wait_before_resume(&status(code, reason, None), 0), None, "{reason}");
        }
    }

    #[test]
    fn request_ids_are_random() {
        let (one, two) = (random_id().unwrap(), random_id().unwrap());
        assert_eq!(one.len(), 32);
        assert_ne!(one, two);
    }

    #[test]
    fn a_page_that_repeats_is_an_error() {
        let mut token = String::new();
        assert!(!next_page(&mut token, String::new()).unwrap());
        assert!(next_page(&mut token, "a".into()).unwrap());
        assert!(next_page(&mut token, "b".into()).unwrap());
        assert!(next_page(&mut token, "b".into()).is_err());
    }
}
