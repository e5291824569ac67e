//! `capstan events subscriptions`: webhooks that are told what changes.

use std::process::ExitCode;

use anyhow::ensure;
use capstan_proto::iam::v1::subscription_service_client::SubscriptionServiceClient;
use capstan_proto::iam::v1::{self as iam, Group, Subscription};
use tonic::Request;

use super::types::{EventType, event_type};
use crate::completion;
use crate::iam::connection::{Safety, Write, WriteArgs, present};
use crate::iam::kind::Kind as _;
use crate::iam::names::{id_to_write, place};
use crate::iam::show;
use crate::iam::values::code;
use crate::iam::verbs::{ChangeArgs, DeleteArgs, ListArgs, ReadArgs, TextArgs, delete, describe};
use crate::output::{self, Output};

const EXAMPLES: &str = "\
Examples:
  capstan events subscriptions create --group acme --sink https://example.com/events
  capstan events subscriptions create --group acme/web --sink https://example.com/events \\
      --type role_binding --type group_invite.created
  capstan events subscriptions list --parent acme
  capstan events subscriptions update acme/0123456789abcdef --enable
  capstan events subscriptions confirm acme/0123456789abcdef -  < challenge
  capstan events subscriptions delete acme/0123456789abcdef --yes";

const CREATE: &str = "\
Examples:
  capstan events subscriptions create --group acme --sink https://example.com/events
  capstan events subscriptions create --group acme/web --sink https://example.com/events \\
      --type role_binding --type group_invite.created

The sink is told what you may list, as long as you may. Nothing is delivered before it has consented: it answers a request \
of the server by itself (the header WebHook-Allowed-Origin), or whoever reads its log returns the challenge that was \
posted to it: `capstan events subscriptions confirm`.

A type is KIND, such as role_binding, KIND.ACTION, such as role_binding.created, or the beginning of a whole type, such as \
dev.capstan.iam.role_binding.created.batch, which is taken as it is. KIND.ACTION has the event of a batch, too.";

const CONFIRM: &str = "\
Examples:
  capstan events subscriptions confirm acme/0123456789abcdef capstan_wc_…
  capstan events subscriptions confirm acme/0123456789abcdef -  < challenge

The challenge is the field `challenge` of the event dev.capstan.iam.subscription.challenge.v1, which is posted to a sink that \
has not consented. It counts for a day.";

/// Subscriptions: webhooks that are told what changes in a group and below it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Subscriptions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The subscriptions that the caller may see, with their state
    #[command(alias = "ls")]
    List(ListArgs),

    /// One subscription
    #[command(alias = "get")]
    Describe {
        /// Its path or name
        #[arg(value_name = "SUBSCRIPTION", add = completion::managed::subscription())]
        subscription: String,

        #[command(flatten)]
        read: ReadArgs,
    },

    /// Creates a subscription; its sink has to consent
    #[command(after_help = CREATE)]
    Create(Box<Create>),

    /// Changes a subscription; another sink has to consent anew
    Update(Box<Update>),

    /// Deletes a subscription: nothing more is delivered
    #[command(alias = "rm")]
    Delete {
        /// Its path, or name:NAME
        #[arg(value_name = "SUBSCRIPTION", add = completion::managed::subscription())]
        subscription: String,

        #[command(flatten)]
        delete: DeleteArgs,
    },

    /// Consents for a sink, with the challenge that was posted to it
    #[command(after_help = CONFIRM)]
    Confirm(Confirm),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The group whose changes are delivered, and those below it: a path, or name:NAME
    #[arg(long, value_name = "GROUP", add = completion::managed::group())]
    group: String,

    /// Where events are posted: an https URL
    #[arg(long, value_name = "URL")]
    sink: String,

    /// Only events of this type: KIND, KIND.ACTION or the beginning of a whole type; repeat for several [default: all]
    #[arg(long = "type", id = "event_type", value_name = "TYPE", value_parser = event_type,
        add = completion::event_type())]
    types: Vec<EventType>,

    /// Deliver nothing before it is enabled
    #[arg(long)]
    disabled: bool,

    /// Its path, one segment below the group, or that segment. The server chooses one if there is none
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// Its path, or name:NAME
    #[arg(value_name = "SUBSCRIPTION", add = completion::managed::subscription())]
    subscription: String,

    /// Another sink, which has to consent: an https URL
    #[arg(long, value_name = "URL")]
    sink: Option<String>,

    /// Only events of these types from now on, instead of those that it has; repeat for several
    #[arg(long = "type", id = "event_type", value_name = "TYPE", value_parser = event_type,
        conflicts_with = "all_types", add = completion::event_type())]
    types: Vec<EventType>,

    /// Events of all types from now on
    #[arg(long)]
    all_types: bool,

    /// Deliver what changes from now on
    #[arg(long, conflicts_with = "disable")]
    enable: bool,

    /// Deliver nothing more
    #[arg(long)]
    disable: bool,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
struct Confirm {
    /// Its path, or name:NAME
    #[arg(value_name = "SUBSCRIPTION", add = completion::managed::subscription())]
    subscription: String,

    /// The challenge; `-` reads it from standard input
    #[arg(value_name = "CHALLENGE")]
    challenge: String,

    #[command(flatten)]
    write: WriteArgs,
}

impl Subscriptions {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        output.of_management()?;
        match self.command {
            Command::List(list) => {
                let server = list.connect().await?;
                list.list::<Subscription>(&server, None, |_| true, output).await
            }
            Command::Describe { subscription, read } => {
                describe::<Subscription>(&subscription, &read, output).await
            }
            Command::Create(create) => create.run(output).await,
            Command::Update(update) => update.run(output).await,
            Command::Delete { subscription, delete: args } => {
                delete::<Subscription>(&subscription, &args, output).await
            }
            Command::Confirm(confirm) => confirm.run(output).await,
        }
    }
}

/// The field of the API.
fn prefixes(types: Vec<EventType>) -> Vec<String> {
    types.into_iter().map(EventType::into_prefix).collect()
}

impl Create {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (mut write, server) = self.write.open().await?;
        let parent = id_to_write::<Group>(&server, &self.group, &mut write).await?;
        let id = match &self.id {
            Some(id) => place(Some(id), Some(&parent))?.1,
            None => String::new(),
        };
        let (name, description) = self.text.values();
        let subscription = Subscription {
            id,
            name,
            description,
            sink: self.sink,
            types: prefixes(self.types),
            disabled: self.disabled,
            ..Subscription::default()
        };
        let made = subscription.create(&server, parent, &write).await?;
        written("created", &made, &write, output)
    }
}

impl Update {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let mut paths = self.text.mask();
        let given = [
            ("sink", self.sink.is_some()),
            ("types", self.all_types || !self.types.is_empty()),
            ("disabled", self.enable || self.disable),
        ];
        paths.extend(given.into_iter().filter(|(_, given)| *given).map(|(path, _)| path.into()));
        ensure!(
            !paths.is_empty(),
            "nothing to change: give --sink, --type, --all-types, --enable, --disable, --name or --description"
        );
        let verb = match (self.enable, self.disable, paths.len()) {
            (true, _, 1) => "enabled",
            (_, true, 1) => "disabled",
            _ => "updated",
        };
        let (mut write, server) = self.change.write.open().await?;
        let id = id_to_write::<Subscription>(&server, &self.subscription, &mut write).await?;
        let (name, description) = self.text.values();
        let subscription = Subscription {
            id,
            name,
            description,
            sink: self.sink.unwrap_or_default(),
            types: prefixes(self.types),
            disabled: self.disable,
            etag: self.change.etag.unwrap_or_default(),
            ..Subscription::default()
        };
        let made = subscription.update(&server, paths, &write).await?;
        written(verb, &made, &write, output)
    }
}

impl Confirm {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (mut write, server) = self.write.open().await?;
        let request = iam::ConfirmSubscriptionRequest {
            id: id_to_write::<Subscription>(&server, &self.subscription, &mut write).await?,
            challenge: code(self.challenge)?,
            request_id: write.request_id.clone(),
            validate_only: write.validate_only,
        };
        let send = async |request: Request<_>| {
            SubscriptionServiceClient::new(server.service()).confirm_subscription(request).await
        };
        let made = server.call(Safety::Write(&write), request, send).await?;
        let subscription = present(made.subscription, Subscription::FIELD)?;
        written("confirmed", &(subscription, made.revision), &write, output)
    }
}

/// Prints a subscription that was made or changed, and says on standard error what is to be done before it is delivered.
///
/// # Errors
///
/// The output cannot be written, or the subscription is none of the schema.
fn written(
    verb: &'static str,
    (subscription, revision): &(Subscription, u64),
    write: &Write,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let code = show::written(verb, (subscription, *revision), write, output)?;
    // Who disables it knows that.
    if !write.validate_only && verb != "disabled" {
        next_step(subscription).map_or(Ok(()), output::note)?;
    }
    Ok(code)
}

/// What is missing before events are delivered.
fn next_step(subscription: &Subscription) -> Option<String> {
    let Subscription { id, disabled, disabled_reason, .. } = subscription;
    match (disabled, &**disabled_reason) {
        (true, _) => Some(format!(
            "  nothing is delivered until it is enabled: capstan events subscriptions update {id} --enable"
        )),
        (false, "") => None,
        // The only other reason is that the sink has not consented.
        (false, _) => Some(format!(
            "  nothing is delivered before the sink consents, by itself or with the challenge that is posted to it\n  \
             has it? capstan events subscriptions describe {id}\n  \
             with the challenge: capstan events subscriptions confirm {id} -"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_is_said_until_events_are_delivered() {
        let of = |disabled: bool, reason: &str| {
            let disabled_reason = reason.to_owned();
            let id = "acme/s".into();
            next_step(&Subscription { id, disabled, disabled_reason, ..Subscription::default() })
        };
        assert_eq!(of(false, ""), None);
        assert!(of(true, "the sink answered 410 Gone").unwrap().contains("update acme/s --enable"));
        let waits = of(false, "the sink has not consented yet").unwrap();
        assert!(waits.contains("describe acme/s") && waits.contains("confirm acme/s -"), "{waits}");
    }
}
