//! Compiles `proto/` to Rust with protox, a protobuf compiler written in Rust: a fresh machine
//! needs no `protoc`. The descriptor set is kept beside the code, with its options, for reflection
//! and for the test that fields are only ever added.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 2] = ["capstan/v1/decision.proto", "capstan/v1/role.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(PROTOS)?;
    fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;

    // Codegen wants `prost_types`' own descriptor set; both crates share one version of it.
    let descriptors = compiler.file_descriptor_set();
    debug_assert!(descriptors.encoded_len() > 0);
    let codegen = || tonic_prost_build::configure().codec_path("crate::codec::Codec");
    codegen().build_server(false).compile_fds(descriptors.clone())?;
    // Servers get batches as they came, and borrow their names.
    let servers = out.join("server");
    fs::create_dir_all(&servers)?;
    codegen()
        .build_client(false)
        .extern_path(".capstan.v1", "crate::v1")
        .extern_path(".capstan.v1.BatchCheckRequest", "crate::plain::BatchRequest")
        .out_dir(servers)
        .compile_fds(descriptors)?;
    Ok(())
}
