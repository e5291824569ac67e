//! Who may do what: every management method, asked with well-formed requests by holders of every built-in role, by the
//! operator, and by callers without any right. And that one organization sees nothing of another.

mod resolved;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use base64::Engine as _;
use capstan_policy::Catalogs;
use capstan_proto::iam::v1 as iam;
use capstan_proto::methods::METHODS;
use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::{CATALOG, Caller, Data, WATCH, types};
use crate::common::golden;
use crate::{gzip, raw};

const PACKAGE: &str = "/capstan.iam.v1.";

/// The roles that pull tokens are asked for, if the catalog has them.
const TOKEN_ROLES: [(&str, &str); 8] = [
    ("registry.pull", "with registry.pull"),
    ("apk.pull", "with apk.pull"),
    ("libraries.java.pull", "with libraries.java.pull"),
    ("libraries.javascript.pull", "with libraries.javascript.pull"),
    ("libraries.python.pull", "with libraries.python.pull"),
    ("registry.pull_token_creator", "with registry.pull_token_creator"),
    ("viewer", "with viewer"),
    ("owner", "with owner"),
];

/// Requests about an organization with [`objects`], which change nothing: method, what is asked, and the message. `token`
/// is the last segment of the pull token.
fn requests(org: &str, catalog: &str, token: &str) -> Vec<(&'static str, &'static str, Value)> {
    let known = Catalogs::default().get(catalog).unwrap();
    let roles = TOKEN_ROLES
        .iter()
        .filter(|(name, _)| known.roles().iter().any(|role| &*role.name == *name));
    let tokens = roles.map(|(role, what)| {
        let message = json!({"group": format!("{org}/team"), "role": role, "validate_only": true});
        ("PullTokenService/CreatePullToken", *what, message)
    });
    let mut all = requests_of_objects(org, catalog, token);
    let before = all.iter().position(|(method, ..)| method.starts_with("PullToken")).unwrap();
    all.splice(before..before, tokens);
    all.extend(resolved::requests(org));
    all
}

/// All [`requests`] but those of tokens with a built-in role.
fn requests_of_objects(
    org: &str,
    catalog: &str,
    token: &str,
) -> Vec<(&'static str, &'static str, Value)> {
    let id = |rest: &str| format!("{org}/{rest}");
    let write = |mut message: Value| {
        message["validate_only"] = true.into();
        message
    };
    let bind = |role: &str| {
        write(json!({"parent": id("empty"), "role_binding": {"identity": id("bot"), "role": role}}))
    };
    let lister = id("lister");
    let update = |kind: &str, mut object: Value, rest: &str| {
        object["id"] = id(rest).into();
        write(json!({kind: object}))
    };
    let get = |rest: &str| json!({"id": id(rest)});
    let delete = |rest: &str| write(json!({"id": id(rest)}));
    let document = format!("version: 1\ncatalog: {catalog}\ngroups: [{{id: {org}, name: New}}]\n");
    let document = base64::engine::general_purpose::STANDARD.encode(document);
    vec![
        (
            "GroupService/CreateGroup",
            "a folder",
            write(json!({"parent": id("team"), "group": {"name": "New"}})),
        ),
        (
            "GroupService/CreateGroup",
            "an organization",
            write(json!({"group": {"id": "new-org"}, "owner": "alice"})),
        ),
        ("GroupService/GetGroup", "a folder", get("team")),
        ("GroupService/ListGroups", "at the organization", json!({"parent": org})),
        (
            "GroupService/UpdateGroup",
            "a folder's name",
            update("group", json!({"name": "New"}), "team"),
        ),
        ("GroupService/DeleteGroup", "an empty folder", delete("empty")),
        ("GroupService/DeleteGroup", "a folder with content", delete("team")),
        (
            "RoleService/CreateRole",
            "with groups.list",
            write(
                json!({"parent": org, "role": {"id": id("new"), "capabilities": ["groups.list"]}}),
            ),
        ),
        (
            "RoleService/CreateRole",
            "with groups.create",
            write(
                json!({"parent": org, "role": {"id": id("new"), "capabilities": ["groups.create"]}}),
            ),
        ),
        ("RoleService/GetRole", "a custom role", get("lister")),
        ("RoleService/GetRole", "a built-in role", json!({"id": "viewer"})),
        ("RoleService/ListRoles", "at the organization", json!({"parent": org})),
        ("RoleService/UpdateRole", "its name", update("role", json!({"name": "New"}), "lister")),
        (
            "RoleService/UpdateRole",
            "its capabilities",
            update("role", json!({"capabilities": ["groups.list", "groups.delete"]}), "lister"),
        ),
        (
            "RoleService/UpdateRole",
            "a built-in role",
            write(json!({"role": {"id": "viewer", "name": "New"}})),
        ),
        ("RoleService/DeleteRole", "not bound", delete("lister")),
        ("RoleService/DeleteRole", "bound", delete("bound-role")),
        ("RoleBindingService/CreateRoleBinding", "to a custom role", bind(&lister)),
        ("RoleBindingService/CreateRoleBinding", "to viewer", bind("viewer")),
        ("RoleBindingService/CreateRoleBinding", "to owner", bind("owner")),
        (
            "RoleBindingService/BatchCreateRoleBindings",
            "to a custom role and to viewer",
            write(json!({"parent": org, "role_bindings": [
                {"identity": id("bot"), "role": lister, "scope": id("empty")},
                {"identity": id("bot"), "role": "viewer", "scope": id("empty")}
            ]})),
        ),
        ("RoleBindingService/GetRoleBinding", "of another identity", get("team/bound")),
        ("RoleBindingService/ListRoleBindings", "at a folder", json!({"parent": id("team")})),
        (
            "RoleBindingService/UpdateRoleBinding",
            "its role",
            update("role_binding", json!({"role": lister}), "team/bound"),
        ),
        ("RoleBindingService/DeleteRoleBinding", "of another identity", delete("team/bound")),
        (
            "RoleBindingService/BatchDeleteRoleBindings",
            "of another identity",
            write(json!({"parent": id("team"), "ids": [id("team/bound")]})),
        ),
        (
            "RoleBindingService/RemoveMember",
            "another identity",
            write(json!({"organization": org, "identity": id("bot")})),
        ),
        (
            "IdentityService/CreateIdentity",
            "in the organization",
            write(json!({"parent": org, "identity": {"name": "New"}})),
        ),
        (
            "IdentityService/CreateIdentity",
            "a root identity",
            write(json!({"identity": {"id": "new-identity"}})),
        ),
        ("IdentityService/GetIdentity", "of the organization", get("bot")),
        ("IdentityService/GetIdentity", "a root identity", json!({"id": format!("{org}-member")})),
        ("IdentityService/ListIdentities", "at the organization", json!({"parent": org})),
        (
            "IdentityService/UpdateIdentity",
            "its name",
            update("identity", json!({"name": "New"}), "bot"),
        ),
        (
            "IdentityService/UpdateIdentity",
            "disables it",
            update("identity", json!({"disabled": true}), "bot"),
        ),
        ("IdentityService/DeleteIdentity", "of the organization", delete("bot")),
        (
            "IdentityService/LookupIdentity",
            "anybody",
            json!({"issuer": "https://issuer.example", "subject": "1"}),
        ),
        (
            "PullTokenService/CreatePullToken",
            "with a custom role",
            write(json!({"group": id("team"), "role": lister})),
        ),
        ("PullTokenService/ListPullTokens", "at the organization", json!({"parent": org})),
        (
            "PullTokenService/RevokePullToken",
            "of the organization",
            delete(&format!("tokens/{token}")),
        ),
        ("PullTokenService/RevokePullToken", "an identity that is none", delete("bot")),
        (
            "GroupInviteService/CreateGroupInvite",
            "with viewer",
            write(json!({"parent": id("team"), "group_invite": {"role": "viewer"}})),
        ),
        (
            "GroupInviteService/CreateGroupInvite",
            "with owner, for one address",
            write(json!({"parent": id("team"),
                "group_invite": {"role": "owner", "email": "ann@example.com"}})),
        ),
        (
            "GroupInviteService/CreateGroupInvite",
            "with owner, for anybody",
            write(json!({"parent": id("team"), "group_invite": {"role": "owner"}})),
        ),
        ("GroupInviteService/GetGroupInvite", "of the organization", get("invites/one")),
        ("GroupInviteService/GetGroupInvite", "absent", get("invites/none")),
        ("GroupInviteService/ListGroupInvites", "at the organization", json!({"parent": org})),
        (
            "GroupInviteService/UpdateGroupInvite",
            "its name",
            update("group_invite", json!({"name": "New"}), "invites/one"),
        ),
        ("GroupInviteService/DeleteGroupInvite", "of the organization", delete("invites/one")),
        (
            "GroupInviteService/AcceptGroupInvite",
            "an unknown code",
            write(json!({"code": "capstan_inv_"})),
        ),
        (
            "SubscriptionService/CreateSubscription",
            "to a public sink",
            write(json!({"parent": id("team"), "subscription": {"sink": "https://example.com/"}})),
        ),
        ("SubscriptionService/GetSubscription", "of the organization", get("hooks/one")),
        ("SubscriptionService/GetSubscription", "absent", get("hooks/none")),
        ("SubscriptionService/ListSubscriptions", "at the organization", json!({"parent": org})),
        (
            "SubscriptionService/UpdateSubscription",
            "its name",
            update("subscription", json!({"name": "New"}), "hooks/one"),
        ),
        (
            "SubscriptionService/UpdateSubscription",
            "its sink",
            update("subscription", json!({"sink": "https://example.org/"}), "hooks/one"),
        ),
        ("SubscriptionService/DeleteSubscription", "of the organization", delete("hooks/one")),
        (
            "SubscriptionService/ConfirmSubscription",
            "with no challenge of its sink",
            write(json!({"id": id("hooks/one"), "challenge": "capstan_wc_"})),
        ),
        (
            "ResourceService/CreateResource",
            "of a type with capabilities",
            write(
                json!({"parent": id("team"), "resource": {"id": id("team/new"), "type": "repo"}}),
            ),
        ),
        (
            "ResourceService/CreateResource",
            "of a type without",
            write(
                json!({"parent": id("team"), "resource": {"id": id("team/new"), "type": "thing"}}),
            ),
        ),
        ("ResourceService/GetResource", "of a type with capabilities", get("team/nginx")),
        ("ResourceService/GetResource", "of a type without", get("team/thing")),
        ("ResourceService/ListResources", "at the organization", json!({"parent": org})),
        (
            "ResourceService/UpdateResource",
            "of a type with capabilities",
            update("resource", json!({"name": "New"}), "team/nginx"),
        ),
        (
            "ResourceService/UpdateResource",
            "of a type without",
            update("resource", json!({"name": "New"}), "team/thing"),
        ),
        ("ResourceService/DeleteResource", "of a type with capabilities", delete("team/nginx")),
        ("ResourceService/DeleteResource", "of a type without", delete("team/thing")),
        ("PolicyService/Export", "the organization", json!({"parent": org})),
        ("PolicyService/Export", "everything", json!({})),
        (
            "PolicyService/Import",
            "a rehearsal",
            json!({"parent": org, "dry_run": true, "chunk": document}),
        ),
        ("PolicyService/Backup", "everything", json!({})),
        // From the first revision, so that there is a response at once.
        ("PolicyService/Watch", "the organization", json!({"parent": org, "start_revision": 1})),
        ("PolicyService/Watch", "everything", json!({"start_revision": 1})),
        ("PolicyService/Watch", "a folder", json!({"parent": id("team"), "start_revision": 1})),
        ("PolicyService/SetCatalog", "a rehearsal", json!({"name": catalog, "dry_run": true})),
        ("AuditService/ListAuditRecords", "of the organization", json!({"parent": org})),
        ("AuditService/ListAuditRecords", "all", json!({})),
        ("AuthService/WhoAmI", "who calls", json!({})),
    ]
}

/// Makes what [`requests`] ask about. Returns the last segment of the pull token.
async fn objects(operator: &Caller, org: &str) -> String {
    let id = |rest: &str| format!("{org}/{rest}");
    let member = format!("{org}-member");
    for (method, message) in [
        ("GroupService/CreateGroup", json!({"parent": org, "group": {"id": id("team")}})),
        ("GroupService/CreateGroup", json!({"parent": org, "group": {"id": id("empty")}})),
        ("GroupService/CreateGroup", json!({"parent": org, "group": {"id": id("tokens")}})),
        ("GroupService/CreateGroup", json!({"parent": org, "group": {"id": id("invites")}})),
        ("GroupService/CreateGroup", json!({"parent": org, "group": {"id": id("hooks")}})),
        (
            "SubscriptionService/CreateSubscription",
            json!({"parent": id("hooks"),
                "subscription": {"id": id("hooks/one"), "sink": "https://example.com/"}}),
        ),
        (
            "GroupInviteService/CreateGroupInvite",
            json!({"parent": id("invites"),
                "group_invite": {"id": id("invites/one"), "role": "viewer"}}),
        ),
        (
            "RoleService/CreateRole",
            json!({"parent": org, "role": {"id": id("lister"), "capabilities": ["groups.list"]}}),
        ),
        (
            "RoleService/CreateRole",
            json!({"parent": org, "role": {"id": id("bound-role"), "capabilities": ["roles.list"]}}),
        ),
        (
            "IdentityService/CreateIdentity",
            json!({"parent": org, "identity": {"id": id("bot"), "type": "service"}}),
        ),
        ("IdentityService/CreateIdentity", json!({"identity": {"id": member, "name": "Member"}})),
        (
            "RoleBindingService/CreateRoleBinding",
            json!({"parent": id("team"),
                "role_binding": {"id": id("team/bound"), "identity": id("bot"), "role": "viewer"}}),
        ),
        (
            "RoleBindingService/CreateRoleBinding",
            json!({"parent": id("team"),
                "role_binding": {"id": id("team/member"), "identity": member, "role": id("bound-role")}}),
        ),
        (
            "ResourceService/CreateResource",
            json!({"parent": id("team"), "resource": {"id": id("team/nginx"), "type": "repo"}}),
        ),
        (
            "ResourceService/CreateResource",
            json!({"parent": id("team"), "resource": {"id": id("team/thing"), "type": "thing"}}),
        ),
    ] {
        operator.json(method, &message).await.unwrap_or_else(|error| panic!("{method}: {error}"));
    }
    for (method, message) in resolved::objects(org) {
        operator.json(method, &message).await.unwrap_or_else(|error| panic!("{method}: {error}"));
    }
    let group = id("tokens");
    let token = iam::CreatePullTokenRequest { group, role: "viewer".into(), ..Default::default() };
    let made: iam::CreatePullTokenResponse =
        operator.ask("PullTokenService/CreatePullToken", token).await.unwrap();
    made.username.rsplit_once('/').unwrap().1.to_owned()
}

/// What a caller is told in a cell of the matrix.
fn cell(method: &str, answer: Result<Vec<Vec<u8>>, Status>) -> String {
    match answer {
        Err(status) => {
            let details = status.get_details_error_info();
            let mut text = format!("{:?}", status.code());
            if let Some(info) = details {
                let of = |name: &str| info.metadata.get(name).cloned();
                write!(text, " {}", info.reason).unwrap();
                for (word, name) in
                    [("", "field"), ("by ", "rule"), ("at ", "scope"), ("lacks ", "missing")]
                {
                    if let Some(value) = of(name) {
                        write!(text, " {word}{value}").unwrap();
                    }
                }
            }
            text
        }
        Ok(answers) if method.contains("/List") && !method.starts_with("Audit") => {
            let page = DynamicMessage::decode(types(method).1, &answers[0][..]).unwrap();
            let list = page.fields().find_map(|(field, value)| {
                let found = value.as_list()?;
                field.is_list().then(|| found.to_vec())
            });
            let ids: Vec<_> = list
                .unwrap_or_default()
                .iter()
                .map(|one| {
                    let one = one.as_message().unwrap();
                    one.get_field_by_name("id").unwrap().as_str().unwrap().to_owned()
                })
                .collect();
            // Built-in roles are everybody's.
            let shown = ids.iter().filter(|id| id.contains('/') || !method.contains("Roles"));
            let shown: Vec<_> = shown.map(|id| &**id).collect();
            format!(
                "Ok, lists {}",
                if shown.is_empty() { "nothing".into() } else { shown.join(" ") }
            )
        }
        Ok(_) => "Ok".into(),
    }
}

/// The matrix of method × role: for each method what each caller is told, callers with one answer in one line. Of a
/// catalog that another one corrects, only what it answers otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn methods_by_role_match_the_golden_file() {
    let mut matrix = String::from(
        "# What each management method answers to whom, on a small store: to holders of the built-in roles at the\n\
         # organization, to an identity of the organization that holds the owner role, to an identity without bindings, to a\n\
         # disabled one, to one that is not registered, to nobody (no caller), and to the operator. Writes with validate_only.\n",
    );
    let literal = of_catalog(CATALOG).await;
    let errata = of_catalog("chainguard-2025-08-14+errata").await;
    assert_eq!(literal.len(), errata.len());
    let differs = errata.into_iter().filter(|row| !literal.contains(row)).collect();
    for (title, rows) in [
        (CATALOG, literal),
        ("chainguard-2025-08-14+errata, where it differs", differs),
        ("chainguard-2023-12-07", of_catalog("chainguard-2023-12-07").await),
    ] {
        write!(matrix, "\n# === {title} ===\n{}", rows.concat()).unwrap();
    }
    golden("methods-by-role.matrix", &matrix);
}

/// What each request of [`requests`] is answered, in their order.
async fn of_catalog(name: &str) -> Vec<String> {
    let catalog = Catalogs::default().get(name).unwrap();
    let data = Data::init(name);
    let server = data.start();
    let operator = server.operator().await;
    let token = objects(&operator, "acme").await;
    let mut callers = vec![];
    let owner = json!("owner");
    for role in catalog.roles() {
        let id = format!("has-{}", role.name);
        let create = json!({"identity": {"id": id}});
        operator.json("IdentityService/CreateIdentity", &create).await.unwrap();
        let bind = json!({"parent": "acme", "role_binding": {"identity": id, "role": &*role.name}});
        operator.json("RoleBindingService/CreateRoleBinding", &bind).await.unwrap();
        callers.push((role.name.to_string(), server.caller(&id).await));
    }
    let own = "acme/owning";
    for (method, message) in [
        ("IdentityService/CreateIdentity", json!({"parent": "acme", "identity": {"id": own}})),
        ("IdentityService/CreateIdentity", json!({"identity": {"id": "on"}})),
        ("IdentityService/CreateIdentity", json!({"identity": {"id": "off", "disabled": true}})),
        (
            "RoleBindingService/CreateRoleBinding",
            json!({"parent": "acme", "role_binding": {"identity": own, "role": owner}}),
        ),
        (
            "RoleBindingService/CreateRoleBinding",
            json!({"parent": "acme", "role_binding": {"identity": "off", "role": owner}}),
        ),
    ] {
        operator.json(method, &message).await.unwrap();
    }
    callers.push(("(owner in acme)".into(), server.caller(own).await));
    callers.push(("(without bindings)".into(), server.caller("on").await));
    callers.push(("(disabled owner)".into(), server.caller("off").await));
    callers.push(("(not registered)".into(), server.caller("ghost").await));
    callers.push(("(nobody)".into(), server.caller("").await));
    callers.push(("(operator)".into(), operator.clone()));

    let requests = requests("acme", name, &token);
    let ours = METHODS.iter().filter_map(|method| method.path.strip_prefix(PACKAGE));
    let asked: BTreeSet<_> = requests.iter().map(|(method, ..)| *method).collect();
    assert_eq!(asked, ours.collect(), "left: methods with a row; right: methods of the schema");
    let state = state(&operator).await;
    let mut rows = vec![];
    for (method, what, message) in &requests {
        let mut row = format!("\n{method}, {what}\n");
        let mut answers: Vec<(String, Vec<&str>)> = vec![];
        for (role, caller) in &callers {
            let answer = cell(method, ask(caller, method, message).await).replace(&token, "TOKEN");
            match answers.iter_mut().find(|(known, _)| *known == answer) {
                Some((_, roles)) => roles.push(role),
                None => answers.push((answer, vec![role])),
            }
        }
        for (answer, roles) in answers {
            writeln!(row, "  {answer}\n    {}", roles.join(" ")).unwrap();
        }
        rows.push(row);
    }
    assert_eq!(self::state(&operator).await, state, "a rehearsal changed something");
    rows
}

/// Each management call is answered to a compressed message as to a plain one.
#[tokio::test(flavor = "multi_thread")]
async fn methods_take_compressed_messages() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let token = objects(&server.operator().await, "acme").await;
    let address: SocketAddr = server.grpc.strip_prefix("http://").unwrap().parse().unwrap();
    let (mut called, mut done) = (BTreeSet::new(), 0);
    for (method, what, message) in requests("acme", CATALOG, &token) {
        if method == WATCH && what != "a folder" {
            continue; // The others have no end.
        }
        let message = DynamicMessage::deserialize(types(method).0, &message).unwrap();
        let path = format!("{PACKAGE}{method}");
        let caller = ("x-capstan-caller", "alice");
        let plain = gzip::call(address, &path, &[caller], raw::framed(&message)).await;
        let headers = [caller, gzip::REQUEST];
        let compressed = gzip::call(address, &path, &headers, gzip::gzipped(&message)).await;
        let [plain, compressed] = [plain, compressed].map(|answer| match answer.code() {
            // Without the header of its frame.
            Code::Ok => cell(method, Ok(vec![answer.data[5..].to_vec()])),
            _ => cell(method, Err(answer.status.unwrap())),
        });
        assert_eq!(compressed, plain, "{method}, {what}");
        called.insert(method);
        done += usize::from(plain.starts_with("Ok"));
    }
    let ours = METHODS.iter().filter_map(|method| method.path.strip_prefix(PACKAGE));
    assert_eq!(called, ours.collect());
    assert!(done > 30, "{done} calls of the owner are done");
}

async fn ask(caller: &Caller, method: &str, message: &Value) -> Result<Vec<Vec<u8>>, Status> {
    let message = DynamicMessage::deserialize(types(method).0, message).unwrap();
    caller.raw(method, Request::new(tokio_stream::once(message.encode_to_vec()))).await
}

/// Everything that the operator sees, except the audit log and when identities were last seen.
async fn state(operator: &Caller) -> Vec<Vec<Vec<u8>>> {
    let mut all = vec![];
    for method in METHODS.iter().filter_map(|method| method.path.strip_prefix(PACKAGE)) {
        if method.contains("/List") && !method.starts_with("Audit") {
            let mut pages = ask(operator, method, &json!({"page_size": 1_000})).await.unwrap();
            if method == "IdentityService/ListIdentities" {
                let mut page = iam::ListIdentitiesResponse::decode(&pages[0][..]).unwrap();
                page.identities.iter_mut().for_each(|identity| identity.last_seen = None);
                pages = vec![page.encode_to_vec()];
            }
            all.push(pages);
        }
    }
    assert_eq!(all.len(), 11);
    all
}

/// Code, text, details and metadata, as they were sent, without the time.
fn sent(status: &Status) -> (Code, String, Vec<u8>, String) {
    let mut metadata = status.metadata().clone();
    metadata.remove("date");
    let metadata = format!("{metadata:?}");
    (status.code(), status.message().into(), status.details().to_vec(), metadata)
}

/// The owner of one organization asks every method about another one, and gets what it would get about one that is not
/// there, byte for byte. Nothing of the other one changes.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_organization_is_seen_or_changed() {
    // Of one length, so that sizes are equal.
    const OTHER: &str = "other";
    const ABSENT: &str = "ghost";
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    objects(&operator, "acme").await;
    let create = json!({"identity": {"id": "other-owner"}});
    operator.json("IdentityService/CreateIdentity", &create).await.unwrap();
    let create = json!({"group": {"id": OTHER}, "owner": "other-owner"});
    operator.json("GroupService/CreateGroup", &create).await.unwrap();
    let token = objects(&operator, OTHER).await;
    let of = |org: &str| requests(org, CATALOG, &token);
    let owners = [server.caller("alice").await, server.caller("acme-member").await];
    let before = state(&operator).await;
    let mut compared = 0;
    for caller in &owners {
        for (other, absent) in of(OTHER).into_iter().zip(of(ABSENT)) {
            let (method, what, mut other) = other;
            let (_, _, mut absent) = absent;
            if other == absent {
                continue; // Of no organization.
            }
            for message in [&mut other, &mut absent] {
                message.as_object_mut().unwrap().remove("validate_only");
            }
            let here = ask(caller, method, &other).await;
            let nowhere = ask(caller, method, &absent).await;
            match (here, nowhere) {
                (Ok(here), Ok(nowhere)) => {
                    assert!(method.contains("/List"), "{method}, {what}");
                    assert_eq!(here, nowhere, "{method}, {what}");
                }
                (Err(here), Err(nowhere)) => {
                    assert_eq!(sent(&here), sent(&nowhere), "{method}, {what}");
                    assert_eq!(here.code(), Code::NotFound, "{method}, {what}: {here:?}");
                }
                (here, nowhere) => panic!("{method}, {what}: {here:?}, {nowhere:?}"),
            }
            compared += 1;
        }
    }
    assert!(compared > 70, "{compared}");

    // References to what is another's, from one's own.
    let references = |org: &str| {
        let (bot, role) = (format!("{org}/bot"), format!("{org}/lister"));
        [
            (
                "RoleBindingService/CreateRoleBinding",
                json!({"parent": "acme", "role_binding": {"identity": bot, "role": "viewer"}}),
            ),
            (
                "RoleBindingService/CreateRoleBinding",
                json!({"parent": "acme", "role_binding": {"identity": "acme/bot", "role": role}}),
            ),
            (
                "RoleBindingService/UpdateRoleBinding",
                json!({"role_binding": {"id": "acme/team/bound", "identity": bot}}),
            ),
            (
                "RoleBindingService/UpdateRoleBinding",
                json!({"role_binding": {"id": "acme/team/bound", "role": role}}),
            ),
            (
                "RoleBindingService/RemoveMember",
                json!({"organization": "acme", "identity": bot, "validate_only": true}),
            ),
            ("GroupService/ListGroups", json!({"filter": format!("id = \"{org}\"")})),
            ("IdentityService/ListIdentities", json!({"filter": format!("id = \"{bot}\"")})),
            ("RoleService/ListRoles", json!({"parent": org, "filter": format!("id = \"{role}\"")})),
        ]
    };
    let alike = |status: &Status| {
        let (code, text, details, metadata) = sent(status);
        let details = String::from_utf8_lossy(&details).replace(OTHER, ABSENT);
        (code, text.replace(OTHER, ABSENT), details, metadata)
    };
    let mut fields = BTreeSet::new();
    for ((method, other), (_, absent)) in references(OTHER).into_iter().zip(references(ABSENT)) {
        let here = ask(&owners[0], method, &other).await;
        let nowhere = ask(&owners[0], method, &absent).await;
        match (here, nowhere) {
            (Ok(here), Ok(nowhere)) => assert_eq!(here, nowhere, "{method} {other}"),
            (Err(here), Err(nowhere)) => {
                assert_eq!(here.code(), Code::InvalidArgument, "{method} {other}: {here:?}");
                // The text names what the caller has sent.
                assert_eq!(alike(&here), alike(&nowhere), "{method} {other}");
                fields.extend(here.get_details_error_info().unwrap().metadata.remove("field"));
            }
            (here, nowhere) => panic!("{method} {other}: {here:?}, {nowhere:?}"),
        }
    }
    assert_eq!(state(&operator).await, before);
    let expected = ["role_binding.identity", "role_binding.role"].map(String::from);
    assert_eq!(fields, BTreeSet::from(expected));

    // Ids of one kind are not those of another, nor do they say that something is there.
    let list = iam::ListRoleBindingsRequest { parent: "acme".into(), ..Default::default() };
    let mine: iam::ListRoleBindingsResponse =
        owners[0].ask("RoleBindingService/ListRoleBindings", list).await.unwrap();
    assert!(mine.role_bindings.iter().all(|one| one.scope.starts_with("acme")));
    assert!(mine.role_bindings.len() >= 3);
}
