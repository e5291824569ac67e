//! `capstan events`: who is told what changes, and what changes as it happens.
//!
//! ```text
//! subscriptions ─▶ SubscriptionService: sinks that the server posts events to
//! tail          ─▶ PolicyService.Watch: the same changes, read from here
//!       └──────────── types: `role_binding.created` for the types of both
//! ```

mod subscriptions;
mod tail;
pub(crate) mod types;

use std::process::ExitCode;

use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  capstan events tail --parent acme
  capstan events tail --parent acme --type role_binding --output json
  capstan events subscriptions create --group acme --sink https://example.com/events
  capstan events subscriptions list --parent acme
  capstan events subscriptions confirm acme/0123456789abcdef -  < challenge";

/// What changes on a server: told to webhooks, or shown as it happens
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Events {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(aliases = ["subscription", "subs", "sub"])]
    Subscriptions(subscriptions::Subscriptions),
    #[command(alias = "watch")]
    Tail(tail::Tail),
}

impl Events {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Subscriptions(subscriptions) => subscriptions.run(output).await,
            Command::Tail(tail) => tail.run(output.format()?).await,
        }
    }
}
