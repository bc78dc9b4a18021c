//! Builds the programs that the bench runs in the kernel.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{env, error::Error, path::PathBuf};

use toolchain::{TARGET, Toolchain};

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().ok_or("the bench is not in a workspace")?;
    for path in ["bench/kernel/src", "bench/kernel/Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!(
        "cargo::rerun-if-changed={}",
        toolchain::linker(root).display()
    );

    let target_dir = PathBuf::from(env::var("OUT_DIR")?).join("bpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let package = "wardline-bench-kernel";
    let mut cargo = Toolchain::find(root)?.cargo("build", package, "load", &arch, &target_dir);
    if !cargo.current_dir(root).status()?.success() {
        return Err("the BPF object does not build; the compiler's words are above".into());
    }
    let object = target_dir.join(TARGET).join("bpf/load");
    println!("cargo::rustc-env=WARDLINE_LOAD={}", object.display());
    Ok(())
}
