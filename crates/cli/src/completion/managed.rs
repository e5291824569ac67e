//! The ids of what a server manages: groups, roles, role bindings, identities, pull tokens, invites, subscriptions, resources,
//! identity providers and mappings.
//!
//! They are listed as the caller of the command line, so nothing is offered that the command could not see. Behind a slash
//! only what is below the typed path is listed.

use capstan_proto::iam::v1::{
    Group, GroupInvite, GroupRoleMapping, Identity, IdentityProvider, PullToken, Resource, Role,
    RoleBinding, Subscription,
};
use clap_complete::ArgValueCompleter;

use super::line::Line;
use super::{Kind, completer};
use crate::context;
use crate::iam::connection::{Connection, ServerArgs, next_page};
use crate::iam::kind::{Listed, Query};
use crate::limits::{COMPLETION_CALLS_MAX, PAGE_OBJECTS};
use crate::logins::Refresh;

/// What an argument of a management command names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Managed {
    Group,
    Role,
    Binding,
    Identity,
    PullToken,
    Invite,
    Subscription,
    Resource,
    Provider,
    Mapping,
    /// A group or a resource.
    Scope,
}

/// The completer of an argument that is the path of a group.
pub(crate) fn group() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::Group))
}

/// The completer of an argument that is a role of a server.
pub(crate) fn role() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::Role))
}

/// The completer of an argument that is the path of a role binding.
pub(crate) fn binding() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::Binding))
}

/// The completer of an argument that is the path of an identity of a server.
pub(crate) fn identity() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::Identity))
}

/// The completer of an argument that is the path of a pull token.
pub(crate) fn pull_token() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::PullToken))
}

/// The completer of an argument that is the path of a group invite.
pub(crate) fn invite() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::Invite))
}

/// The completer of an argument that is the path of a subscription.
pub(crate) fn subscription() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::Subscription))
}

/// The completer of an argument that is the path of a registered resource.
pub(crate) fn resource() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::Resource))
}

/// The completer of an argument that is the path of an identity provider.
pub(crate) fn provider() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::Provider))
}

/// The completer of an argument that is the path of a group role mapping.
pub(crate) fn mapping() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::Mapping))
}

/// The completer of an argument that is the path of a group or a registered resource.
pub(crate) fn scope() -> ArgValueCompleter {
    completer(Kind::Managed(Managed::Scope))
}

/// The ids that the caller may see, below the typed path; `None` if the server does not answer.
pub(super) fn ids(what: Managed, line: &Line, typed: &str) -> Option<Vec<String>> {
    if !line.has_addr {
        return None;
    }
    if let Some(name) = line.context.clone() {
        context::choose(name);
    }
    let args = ServerArgs {
        addr: line.addr.clone(),
        caller: line.caller.clone(),
        email: line.email.clone(),
        token_file: line.token_file.clone(),
        refresh: Refresh::No,
    };
    let parent = typed.rsplit_once('/').map_or("", |(parent, _)| parent);
    let query = Query { parent: parent.to_owned(), ..Query::default() };
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    threads.block_on(async {
        let server = args.connect().await.ok()?;
        match what {
            Managed::Group => listed::<Group>(&server, &query).await,
            Managed::Role => listed::<Role>(&server, &query).await,
            Managed::Binding => listed::<RoleBinding>(&server, &query).await,
            Managed::Identity => listed::<Identity>(&server, &query).await,
            Managed::PullToken => listed::<PullToken>(&server, &query).await,
            Managed::Invite => listed::<GroupInvite>(&server, &query).await,
            Managed::Subscription => listed::<Subscription>(&server, &query).await,
            Managed::Resource => listed::<Resource>(&server, &query).await,
            Managed::Provider => listed::<IdentityProvider>(&server, &query).await,
            Managed::Mapping => listed::<GroupRoleMapping>(&server, &query).await,
            Managed::Scope => {
                let mut ids = listed::<Group>(&server, &query).await?;
                ids.extend(listed::<Resource>(&server, &query).await?);
                Some(ids)
            }
        }
    })
}

/// The first pages of a list: at most [`COMPLETION_CALLS_MAX`].
async fn listed<K: Listed>(server: &Connection, query: &Query) -> Option<Vec<String>> {
    let (mut ids, mut token) = (Vec::new(), String::new());
    for _ in 0..COMPLETION_CALLS_MAX {
        let page = K::page(server, query, PAGE_OBJECTS, &token).await.ok()?;
        ids.extend(page.objects.iter().map(|object| object.id().to_owned()));
        if !next_page(&mut token, page.next).ok()? {
            break;
        }
    }
    Some(ids)
}
