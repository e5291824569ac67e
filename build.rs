//! Compiles `proto/` with protox, a protobuf compiler in Rust, so that no `protoc` is needed.
//!
//! Output: the messages, clients and servers; the descriptor set with options (for reflection, and
//! for the test that fields are only added); the table of methods. A method without an option that says who may call it
//! fails the build.

use std::fmt::Write as _;
use std::{env, error::Error, fs, path::PathBuf};

use protox::prost_reflect::{DescriptorPool, Kind, MessageDescriptor, MethodDescriptor, Value};

const PROTOS: [&str; 17] = [
    "capstan/v1/decision.proto",
    "capstan/iam/v1/options.proto",
    "capstan/iam/v1/common.proto",
    "capstan/iam/v1/group.proto",
    "capstan/iam/v1/role.proto",
    "capstan/iam/v1/role_binding.proto",
    "capstan/iam/v1/identity.proto",
    "capstan/iam/v1/pull_token.proto",
    "capstan/iam/v1/group_invite.proto",
    "capstan/iam/v1/subscription.proto",
    "capstan/iam/v1/resource.proto",
    "capstan/iam/v1/policy.proto",
    "capstan/iam/v1/audit.proto",
    "capstan/iam/v1/auth.proto",
    "capstan/iam/v1/identity_provider.proto",
    "capstan/iam/v1/group_role_mapping.proto",
    "capstan/iam/v1/account_association.proto",
];

/// The option of each method that says who may call it.
const OPTION: &str = "capstan.iam.v1.authorization";

/// The service whose methods are open and have no option, so that its schema is one file without imports of ours: clients
/// in other languages compile that file alone.
const OPEN_SERVICE: &str = "capstan.v1.DecisionService";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(PROTOS)?;
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("methods.rs"), methods(&compiler.descriptor_pool())?)?;

    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The table of methods as a Rust expression, for `proto/methods.rs`.
///
/// # Errors
///
/// A method has no [`OPTION`], or one that is not complete.
fn methods(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut table = String::from("[\n");
    for service in pool.services() {
        let service_name = service.full_name();
        let prefix = if service.package_name() == "capstan.iam.v1" { "iam." } else { "" };
        for method in service.methods() {
            let name = method.name();
            let streams = method.is_client_streaming() || method.is_server_streaming();
            let decides = has_reason(&method.output(), 2);
            let full_name = method.full_name();
            let (access, writes) =
                access(pool, &method).map_err(|problem| format!("{full_name}: {problem}"))?;
            writeln!(
                table,
                "Method {{ path: \"/{service_name}/{name}\", name: \"{name}\", \
                 label: \"{prefix}{name}\", streams: {streams}, decides: {decides}, \
                 access: {access}, writes: {writes} }},",
            )?;
        }
    }
    table.push(']');
    Ok(table)
}

/// Who may call a method, as a Rust expression, and whether it writes.
///
/// # Errors
///
/// The method has no [`OPTION`]; its option does not say where; it names no capability, or a field that the request does
/// not have.
fn access(
    pool: &DescriptorPool,
    method: &MethodDescriptor,
) -> Result<(String, bool), Box<dyn Error>> {
    if method.parent_service().full_name() == OPEN_SERVICE {
        return Ok(("Access::Open".into(), false));
    }
    let extension = pool.get_extension_by_name(OPTION).ok_or("the option is not in the schema")?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return Err(format!("give it the option {OPTION}: who may call it?").into());
    }
    let option = options.get_extension(&extension);
    let option = option.as_message().ok_or("the option is not a message")?;
    let get = |name| option.get_field_by_name(name).ok_or(format!("the option has no {name}"));
    let capabilities = get("capabilities")?;
    let capabilities: Vec<_> =
        capabilities.as_list().unwrap_or_default().iter().filter_map(Value::as_str).collect();
    let place = ["scope", "parent_of", "unscoped", "open", "operator"]
        .into_iter()
        .find(|place| option.has_field_by_name(place))
        .ok_or("its option does not say where the capabilities are needed")?;
    if matches!(place, "open" | "operator") != capabilities.is_empty() {
        return Err(format!("{} capabilities with `{place}`", capabilities.len()).into());
    }
    let field = get(place)?;
    let field = field.as_str().unwrap_or_default();
    if matches!(place, "scope" | "parent_of") && !has_field(&method.input(), field) {
        return Err(format!("its request has no text field `{field}`").into());
    }
    let needed = format!("Needed {{ capabilities: &{capabilities:?}, field: {field:?} }}");
    let access = match place {
        "scope" => format!("Access::At({needed})"),
        "parent_of" => format!("Access::AtParentOf({needed})"),
        "unscoped" => format!("Access::Narrowed(&{capabilities:?})"),
        "operator" => "Access::Operator".to_owned(),
        _ => "Access::Open".to_owned(),
    };
    Ok((access, get("writes")?.as_bool().unwrap_or_default()))
}

/// Whether a message has a text field at this path, such as `group.id`.
fn has_field(message: &MessageDescriptor, path: &str) -> bool {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let kind = message.get_field_by_name(name).map(|field| field.kind());
    match (kind, rest) {
        (Some(Kind::String), None) => true,
        (Some(Kind::Message(inner)), Some(rest)) => has_field(&inner, rest),
        _ => false,
    }
}

/// Whether the message type has a field of type `Reason`, directly or in nested messages, down to
/// `depth` levels of messages.
fn has_reason(message: &MessageDescriptor, depth: u32) -> bool {
    depth > 0
        && message.fields().any(|field| match field.kind() {
            Kind::Enum(kind) => kind.full_name() == "capstan.v1.Reason",
            Kind::Message(inner) => has_reason(&inner, depth - 1),
            _ => false,
        })
}
