//! `capstan auth whoami`: who calls.

use std::process::ExitCode;

use capstan_proto::iam::v1::auth_service_client::AuthServiceClient;
use capstan_proto::iam::v1::{self as iam, ScopeCapabilities, WhoAmIResponse};
use tonic::Request;

use crate::capabilities::by_resource;
use crate::iam::connection::{Safety, ServerArgs};
use crate::iam::json;
use crate::iam::kind::time;
use crate::output::{self, Format, Output};

const EXAMPLES: &str = "\
Examples:
  capstan auth whoami --addr https://capstan.example.com:4480 --token-file token
  capstan auth whoami --as acme/ci --token-file token      an identity of an organization is named
  capstan auth whoami --addr unix:/var/lib/capstan/operator.sock
  capstan auth whoami --output json

Exit codes: 0 known, 2 error; no credential, or one that proves no identity, is one.";

/// Who the server says that you are: the identity, how it is proved and until when, and what it may do
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct WhoAmI {
    #[command(flatten)]
    server: ServerArgs,
}

impl WhoAmI {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let format = output.format()?;
        let server = self.server.connect().await?;
        let send = async |request: Request<_>| {
            AuthServiceClient::new(server.service()).who_am_i(request).await
        };
        let found = server.call(Safety::Read, iam::WhoAmIRequest {}, send).await?;
        match format {
            Format::Json => output::json(&json::of(&found, "WhoAmIResponse")?)?,
            Format::Table => show(found)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(found: WhoAmIResponse) -> anyhow::Result<()> {
    let WhoAmIResponse { identity, authentication, expires_at, scopes, truncated, .. } = found;
    let is_operator = identity.is_empty();
    let mut table = output::table(["who", ""]);
    table.add_row(["identity", if is_operator { "the operator" } else { &identity }]);
    table.add_row(["proved by", &authentication]);
    let until = expires_at.map_or_else(|| "no end".to_owned(), |at| time(Some(at)));
    table.add_row(["until", &until]);
    output::line(table)?;
    if is_operator {
        return output::line("may do everything");
    }
    if scopes.is_empty() {
        return output::line("no role binding counts: nothing may be managed");
    }
    let mut table = output::table(["scope", "resource", "actions"]);
    for ScopeCapabilities { scope, capabilities } in scopes {
        let mut scope = Some(scope);
        for (kind, actions) in by_resource(&capabilities) {
            table.add_row([scope.take().unwrap_or_default(), kind.to_owned(), actions.join(" ")]);
        }
    }
    output::line(table)?;
    if truncated {
        output::note("there are more scopes than fit into one answer")?;
    }
    Ok(())
}
