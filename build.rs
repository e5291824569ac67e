//! Compiles `proto/` with protox, a protobuf compiler in Rust, so that no `protoc` is needed.
//!
//! Output: the messages, clients and servers; the descriptor set with options (for reflection, and
//! for the test that fields are only added); the table of methods.

use std::fmt::Write as _;
use std::{env, error::Error, fs, path::PathBuf};

use protox::prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

const PROTOS: [&str; 2] = ["capstan/v1/decision.proto", "capstan/v1/role.proto"];

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
fn methods(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut table = String::from("[\n");
    for service in pool.services() {
        let service_name = service.full_name();
        for method in service.methods() {
            let name = method.name();
            let streams = method.is_client_streaming() || method.is_server_streaming();
            let decides = has_reason(&method.output(), 2);
            writeln!(
                table,
                "Method {{ path: \"/{service_name}/{name}\", name: \"{name}\", \
                 streams: {streams}, decides: {decides} }},",
            )?;
        }
    }
    table.push(']');
    Ok(table)
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
