//! Prepares a machine to build and run the BPF object: compiler, linker, BPF file system.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    step,
    toolchain::{self, Compiler, LLVM, NIGHTLY, Toolchain},
};

/// The linker's version; it must be built with the LLVM of [`LLVM`].
const LINKER: &str = "bpf-linker@0.13.0";

/// Debian's compiler and its `core` for BPF.
const COMPILER_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Packages to build the linker with; it also needs the LLVM library when it runs.
const LINKER_PACKAGES: [&str; 5] = [
    "g++",
    "libpolly-22-dev",
    "libzstd-dev",
    "llvm-22-dev",
    "zlib1g-dev",
];

/// Programs that tests run as servers and clients of others, and their packages: a server for DHCP
/// and router advertisements, another for advertisements with many prefixes, a DHCP client, VRRP,
/// and NAT. Without one, its tests are skipped.
const TEST_PROGRAMS: [(&str, &str, &str); 5] = [
    ("dnsmasq", "--version", "dnsmasq-base"),
    ("busybox", "--list", "busybox"),
    ("keepalived", "--version", "keepalived"),
    ("nft", "--version", "nftables"),
    ("radvd", "--version", "radvd"),
];

/// The code generator and the libraries of a client in Python. Without them, its test is skipped.
const PYTHON_PACKAGES: [&str; 4] = [
    "protobuf-compiler",
    "protobuf-compiler-grpc",
    "python3-grpcio",
    "python3-protobuf",
];

/// Where distributions install a complete LLVM of the wanted version.
const LLVM_PREFIXES: [&str; 3] = ["/usr/lib/llvm-22", "/usr/lib64/llvm22", "/usr/lib/llvm22"];

/// Installs what is missing; if nothing is, this takes a fraction of a second.
///
/// # Errors
/// Says what is missing and how to get it, when it can't be installed from here.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let wanted = wanted_packages(root);
    if !wanted.is_empty() && is_debian() {
        install_packages(&wanted)?;
    }
    if Compiler::find().is_err() {
        install_nightly()?;
    }
    if !linker_works(root) {
        install_linker(root)?;
    }
    Toolchain::find(root)?;
    if !runs("ip", "-V") {
        bail!("no program `ip`: install iproute2");
    }
    mount_bpffs()
}

/// The Debian packages that provide tools which do not work here. The tools are run instead of
/// looking at the package list, because they may have been installed in another way.
fn wanted_packages(root: &Path) -> Vec<&'static str> {
    let mut wanted = Vec::new();
    match Compiler::find() {
        Err(_) => wanted.extend(COMPILER_PACKAGES.into_iter().chain(["rust-web-clippy"])),
        Ok(Compiler::Debian) if !runs("/usr/bin/clippy-driver", "-V") => {
            wanted.push("rust-web-clippy");
        }
        Ok(_) => {}
    }
    if !linker_works(root) {
        wanted.extend(LINKER_PACKAGES);
    }
    if !runs("ip", "-V") {
        wanted.push("iproute2");
    }
    for (program, argument, package) in TEST_PROGRAMS {
        if !runs(program, argument) {
            wanted.push(package);
        }
    }
    // The generator itself has no harmless argument.
    if !runs("/usr/bin/python3", "-cimport grpc, google.protobuf")
        || !Path::new("/usr/bin/grpc_python_plugin").exists()
    {
        wanted.extend(PYTHON_PACKAGES);
    }
    wanted
}

pub(crate) fn install_packages(wanted: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!(
            "Debian packages are missing: run `sudo apt-get install {}`",
            missing.join(" ")
        );
    }
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        apt.args(["--quiet", "--yes"]).args(arguments);
        apt
    };
    step::wait("apt-get update", &mut apt(&["update"]))?;
    // Debian's compiler conflicts with some other Rust packages, which must not be removed.
    let install = ["install", "--no-install-recommends", "--no-remove"];
    let what = format!("apt-get install {}", missing.join(" "));
    step::wait(&what, apt(&install).args(missing))
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    query
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

/// Installs a nightly with the linker's LLVM, where Debian's compiler is not available.
fn install_nightly() -> anyhow::Result<()> {
    if !runs("rustup", "-V") {
        let Err(missing) = Compiler::find() else {
            return Ok(());
        };
        bail!(
            "no compiler for BPF ({}): install rustup, or on Debian the packages {}",
            missing.0.join("; "),
            COMPILER_PACKAGES.join(" ")
        );
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]);
    rustup.args(["--component", "rust-src", "--component", "clippy"]);
    step::wait(
        &format!("rustup toolchain install {NIGHTLY} with rust-src"),
        &mut rustup,
    )
}

/// Builds the linker into the workspace, and removes the build's leftovers.
fn install_linker(root: &Path) -> anyhow::Result<()> {
    let Some(llvm) = llvm_prefix() else {
        bail!(
            "no LLVM {LLVM} with headers, which the linker for BPF is built with: install your \
             distribution's packages for it (on Debian {}), or point LLVM_PREFIX to it",
            LINKER_PACKAGES.join(" ")
        );
    };
    let home = root.join(".toolchain");
    let scratch = home.join("build");
    let mut cargo = step::cargo("install");
    cargo.args([LINKER, "--locked", "--force", "--no-default-features"]);
    cargo
        .arg(format!("--features=llvm-{LLVM}"))
        .arg("--root")
        .arg(&home);
    cargo
        .arg("--target-dir")
        .arg(&scratch)
        .env("LLVM_PREFIX", llvm);
    let built = step::wait(&format!("cargo install {LINKER}"), &mut cargo);
    if scratch.exists() {
        fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
    }
    built
}

fn llvm_prefix() -> Option<PathBuf> {
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        return Some(prefix.into());
    }
    let has_headers = |prefix: &PathBuf| prefix.join("include/llvm-c/Core.h").is_file();
    LLVM_PREFIXES
        .into_iter()
        .map(PathBuf::from)
        .find(has_headers)
}

fn linker_works(root: &Path) -> bool {
    runs(toolchain::linker(root), "--version")
}

/// Pins live in the BPF file system; building does not need it, so without root it is only
/// mentioned.
fn mount_bpffs() -> anyhow::Result<()> {
    const WHERE: &str = "/sys/fs/bpf";
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mounts")?;
    let is_bpffs = |line: &str| line.split(' ').nth(1) == Some(WHERE);
    if mounts.lines().any(is_bpffs) {
        return Ok(());
    }
    if !is_root() {
        step::title(format!(
            "{WHERE} is not mounted: run `sudo mount -t bpf bpf {WHERE}`"
        ));
        return Ok(());
    }
    step::show(
        "mount the BPF file system",
        Command::new("mount").args(["-t", "bpf", "bpf", WHERE]),
    )
}

pub(crate) fn is_debian() -> bool {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    os.lines().any(|line| line == "ID=debian")
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Whether a program exists and runs.
fn runs(program: impl AsRef<std::ffi::OsStr>, argument: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
