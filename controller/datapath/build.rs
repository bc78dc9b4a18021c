//! Builds the BPF object that the daemon embeds, for its own target and with its own tools.

#[path = "../../xtask/src/toolchain.rs"]
mod toolchain;

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use toolchain::{TARGET, Toolchain};

fn main() -> ExitCode {
    match build() {
        Ok(object) => {
            println!("cargo::rustc-env=WARDLINE_OBJECT={}", object.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds into a separate target directory, because the workspace's is locked while this runs.
fn build() -> Result<PathBuf, Box<dyn Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = manifest
        .ancestors()
        .nth(2)
        .ok_or("the datapath is not in a workspace")?;
    rerun_if_changed(root);

    let target_dir = PathBuf::from(env::var("OUT_DIR")?).join("bpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let package = "wardline-ebpf";
    let mut cargo = Toolchain::find(root)?.cargo("build", package, "datapath", &arch, &target_dir);
    if env::var_os("CARGO_FEATURE_LOG").is_some() {
        cargo.args(["--features", "log"]);
    }
    let status = cargo.current_dir(root).status()?;
    if !status.success() {
        return Err("the BPF object does not build; the compiler's words are above".into());
    }
    Ok(target_dir.join(TARGET).join("bpf/datapath"))
}

fn rerun_if_changed(root: &Path) {
    for path in ["ebpf/src", "ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!(
        "cargo::rerun-if-changed={}",
        toolchain::linker(root).display()
    );
    println!(
        "cargo::rerun-if-changed={}",
        root.join("xtask/src/toolchain.rs").display()
    );
}
