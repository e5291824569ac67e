//! Compiles the schema of the services, with the options of Capstan, and keeps its descriptors for the layer.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto", "../../proto"])?;
    compiler.include_imports(true).open_files(["shop/v1/shop.proto", "shop/v1/cart.proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let mut files = compiler.file_descriptor_set();
    // No code for the options: the layer reads them from the descriptors.
    files.file.retain(|file| file.package() == "shop.v1");
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
