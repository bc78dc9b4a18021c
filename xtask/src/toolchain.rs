//! The compiler and the linker that build the BPF object.
//!
//! `controller/datapath/build.rs` includes this file as well, so that the embedded object and the
//! linted one come from the same tools; therefore it uses only std.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The BPF target for the supported routers, which are all little-endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// The LLVM that `bpf-linker` is built with. It reads the compiler's bitcode, so the compiler's
/// LLVM must be of the same major version.
pub(crate) const LLVM: &str = "22";

/// A nightly whose LLVM is [`LLVM`], for machines without Debian's compiler. The toolchain named
/// `nightly` is used as well if its LLVM fits.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";

/// Where Debian's package `rustc-web` puts its compiler.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Where Debian's package `rust-web-clippy` puts its linter.
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";

/// A compiler with a `core` for BPF, and the matching linker.
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

/// The source of `core` for BPF.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// Debian's, with a precompiled `core` in its sysroot.
    Debian,
    /// The named nightly of rustup's, which builds `core` from its component `rust-src`.
    Nightly(&'static str),
}

/// What this machine lacks for building a BPF object.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) Vec<String>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "can't build the BPF object: run `cargo xtask setup` ({})",
            self.0.join("; ")
        )
    }
}

impl std::error::Error for Missing {}

impl Toolchain {
    /// Looks for the tools; `root` is the workspace's.
    ///
    /// # Errors
    /// Names everything that is missing.
    pub(crate) fn find(root: &Path) -> Result<Self, Missing> {
        let linker = linker(root);
        let mut missing = Vec::new();
        if !linker.is_file() {
            missing.push(format!("no linker at {}", linker.display()));
        }
        match Compiler::find() {
            Ok(compiler) if missing.is_empty() => return Ok(Self { compiler, linker }),
            Ok(_) => {}
            Err(Missing(more)) => missing.extend(more),
        }
        Err(Missing(missing))
    }

    /// A cargo command on one binary for the BPF target, without what the calling cargo put into
    /// the environment. `arch` is the architecture of the kernel that will run the object: its
    /// registers and `pt_regs` determine a few of aya's definitions.
    pub(crate) fn cargo(
        &self,
        subcommand: &str,
        package: &str,
        binary: &str,
        arch: &str,
        target_dir: &Path,
    ) -> Command {
        let mut command = match self.compiler {
            Compiler::Debian => {
                // Debian's clippy is a program beside the compiler; it runs the cargo in `CARGO`.
                let mut cargo = match subcommand {
                    "clippy" => Command::new(DEBIAN_CLIPPY),
                    _ => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
                };
                // aya-ebpf needs inline assembly for BPF, which no stable compiler enables.
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo.arg(subcommand);
                cargo
            }
            Compiler::Nightly(name) => {
                let mut rustup = Command::new("rustup");
                rustup.args(["run", name, "cargo", subcommand, "-Zbuild-std=core"]);
                rustup
                    .env_remove("RUSTC")
                    .env_remove("CARGO")
                    .env_remove("RUSTUP_TOOLCHAIN");
                rustup
            }
        };
        for inherited in [
            "CARGO_BUILD_RUSTC",
            "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
            "CARGO_BUILD_RUSTC_WRAPPER",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "CLIPPY_ARGS",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_WRAPPER",
            "RUSTDOCFLAGS",
            "RUSTFLAGS",
        ] {
            command.env_remove(inherited);
        }
        // `v3` has 32-bit registers and jumps, and every supported kernel loads it. Cargo passes
        // these flags only to code for the target, not to build scripts and macros.
        let mut flags = vec![
            format!("--cfg=bpf_target_arch=\"{arch}\""),
            format!("-Clinker={}", self.linker.display()),
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            // Otherwise clearing or copying a few words becomes a call that goes byte by byte.
            "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
            "-Ctarget-cpu=v3".to_owned(),
        ];
        // Headers are not aligned. Where the verifier accepts that, a field is one load, otherwise
        // one for each byte.
        if matches!(arch, "x86_64" | "aarch64") {
            flags.push("-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned());
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        command.args(["--package", package, "--bin", binary]);
        command.args(["--profile", "bpf"]);
        command
            .args(["--target", TARGET, "--target-dir"])
            .arg(target_dir);
        command
    }
}

impl Compiler {
    /// Prefers Debian's, because then only our own crates have to be compiled.
    ///
    /// # Errors
    /// Names what each of the two lacks.
    pub(crate) fn find() -> Result<Self, Missing> {
        let mut missing = Vec::new();
        match Answers::of(&[DEBIAN_RUSTC]) {
            None => missing.push(format!("no compiler at {DEBIAN_RUSTC}")),
            Some(rustc) if !rustc.has_llvm() => {
                missing.push(format!("{DEBIAN_RUSTC} is not of LLVM {LLVM}"));
            }
            Some(rustc) if !rustc.has_core() => {
                missing.push(format!("{DEBIAN_RUSTC} has no core for {TARGET}"));
            }
            Some(_) => return Ok(Self::Debian),
        }
        for name in [NIGHTLY, "nightly"] {
            match Answers::of(&["rustup", "run", name, "rustc"]) {
                None => missing.push(format!("rustup has no {name}")),
                Some(rustc) if !rustc.has_llvm() => {
                    missing.push(format!("rustup's {name} is not of LLVM {LLVM}"));
                }
                Some(rustc) if !rustc.has_source() => {
                    missing.push(format!("rustup's {name} has no rust-src"));
                }
                Some(_) => return Ok(Self::Nightly(name)),
            }
        }
        Err(Missing(missing))
    }
}

/// Where the workspace keeps its linker.
pub(crate) fn linker(root: &Path) -> PathBuf {
    root.join(".toolchain/bin/bpf-linker")
}

/// A compiler's description of itself.
struct Answers {
    version: String,
    sysroot: PathBuf,
}

impl Answers {
    /// Runs a compiler's command line; `None` when it does not work.
    fn of(words: &[&str]) -> Option<Self> {
        let ask = |arguments: &[&str]| {
            let mut command = Command::new(words.first()?);
            // Otherwise rustup would install a toolchain without being asked.
            command
                .env("RUSTUP_AUTO_INSTALL", "0")
                .env_remove("RUSTUP_TOOLCHAIN");
            let output = command.args(&words[1..]).args(arguments).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            output.status.success().then_some(text)
        };
        let version = ask(&["-vV"])?;
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim_end());
        Some(Self { version, sysroot })
    }

    fn has_llvm(&self) -> bool {
        let major =
            |line: &str| Some(line.strip_prefix("LLVM version: ")?.split('.').next()? == LLVM);
        self.version.lines().find_map(major).unwrap_or(false)
    }

    fn has_core(&self) -> bool {
        let libraries = self.sysroot.join("lib/rustlib").join(TARGET).join("lib");
        let is_core =
            |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libcore-");
        fs::read_dir(libraries).is_ok_and(|entries| entries.flatten().any(is_core))
    }

    fn has_source(&self) -> bool {
        self.sysroot
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .is_file()
    }
}
