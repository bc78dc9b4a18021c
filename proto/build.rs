//! Compiles the proto file to Rust and to a descriptor set, for reflection and documents.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=wardline");
    let files = protox::compile(["wardline/v1/segmentation.proto"], ["."])?;
    let descriptor = PathBuf::from(env::var("OUT_DIR")?).join("wardline.bin");
    fs::write(descriptor, files.encode_to_vec())?;
    // Code for documents finds a message's descriptor by its name.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    // Equal documents have equal bytes.
    config.btree_map(["."]);
    tonic_prost_build::configure().compile_fds_with_config(files, config)?;
    Ok(())
}
