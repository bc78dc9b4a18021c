//! What is in the package, and whether systemd, man and dpkg take it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{bail, ensure};

use super::{Package, Stage, archive, home, output, time, version};
use crate::{build::Programs, setup, step};

/// What must be in the package, with its mode.
const FILES: [(&str, &str); 14] = [
    ("-rwxr-xr-x", "./usr/sbin/wardlined"),
    ("-rwxr-xr-x", "./usr/bin/wardctl"),
    ("-rw-r--r--", "./usr/lib/systemd/system/wardlined.service"),
    ("-rw-r--r--", "./etc/wardline/wardlined.toml"),
    ("-rw-r--r--", "./usr/share/man/man8/wardlined.8.gz"),
    ("-rw-r--r--", "./usr/share/man/man1/wardctl.1.gz"),
    ("-rw-r--r--", "./usr/share/man/man1/wardctl-apply.1.gz"),
    (
        "-rw-r--r--",
        "./usr/share/bash-completion/completions/wardctl",
    ),
    ("-rw-r--r--", "./usr/share/zsh/vendor-completions/_wardctl"),
    (
        "-rw-r--r--",
        "./usr/share/fish/vendor_completions.d/wardctl.fish",
    ),
    ("-rw-r--r--", "./usr/share/doc/wardline/copyright"),
    ("-rw-r--r--", "./usr/share/doc/wardline/crates.gz"),
    ("-rw-r--r--", "./usr/share/doc/wardline/changelog.gz"),
    (
        "-rw-r--r--",
        "./usr/share/doc/wardline/examples/clinic.yaml",
    ),
];

/// The most that `systemd-analyze security` may say, in tenths.
const EXPOSURE: &str = "40";

/// Checks the package, and that it is made the same again.
///
/// # Errors
/// With everything that is wrong.
pub(super) fn thoroughly(
    root: &Path,
    programs: &Programs,
    package: &Package,
) -> anyhow::Result<()> {
    setup::install_packages(&["lintian"])?;
    all_right([
        quickly(root, package),
        reproducible(root, programs, package),
        lintian(package),
    ])
}

/// Checks what is in the package: files, fields, unit, pages, scripts.
///
/// # Errors
/// With everything that is wrong.
pub(super) fn quickly(root: &Path, package: &Package) -> anyhow::Result<()> {
    step::title("check the package");
    let tree = home(root).join("unpacked");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let mut unpack = Command::new("dpkg-deb");
    output(unpack.arg("--raw-extract").arg(&package.deb).arg(&tree))?;
    all_right([
        contents(package),
        fields(package),
        sums(&tree),
        scripts(&tree),
        manual(&tree),
        unit(&tree),
    ])
}

/// # Errors
/// With everything that is wrong.
fn all_right<const CHECKS: usize>(checks: [anyhow::Result<()>; CHECKS]) -> anyhow::Result<()> {
    let wrong: Vec<String> = checks
        .into_iter()
        .filter_map(Result::err)
        .map(|error| format!("{error:#}"))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn contents(package: &Package) -> anyhow::Result<()> {
    let told = output(Command::new("dpkg-deb").arg("--contents").arg(&package.deb))?;
    for (mode, path) in FILES {
        let line = told
            .lines()
            .find(|line| line.ends_with(&format!(" {path}")));
        match line {
            Some(line) if line.starts_with(&format!("{mode} root/root ")) => {}
            Some(line) => bail!("{path} is not {mode}: {line}"),
            None => bail!("no {path}"),
        }
    }
    let odd = told.lines().find(|line| !line.contains(" root/root "));
    ensure!(odd.is_none(), "not root's: {odd:?}");
    Ok(())
}

fn fields(package: &Package) -> anyhow::Result<()> {
    let field = |name: &str| {
        let mut ask = Command::new("dpkg-deb");
        output(ask.arg("--field").arg(&package.deb).arg(name))
    };
    for (name, expected) in [
        ("Package", "wardline"),
        ("Version", version()),
        ("Architecture", package.architecture),
    ] {
        let told = field(name)?;
        ensure!(told.trim() == expected, "{name} is {told}");
    }
    let depends = field("Depends")?;
    ensure!(depends.contains("libc6 (>="), "Depends is {depends}");
    Ok(())
}

fn sums(tree: &Path) -> anyhow::Result<()> {
    let mut check = Command::new("md5sum");
    check.args(["--check", "--quiet", "--strict", "DEBIAN/md5sums"]);
    output(check.current_dir(tree)).map(drop)
}

fn scripts(tree: &Path) -> anyhow::Result<()> {
    for name in ["postinst", "prerm", "postrm"] {
        let script = tree.join("DEBIAN").join(name);
        output(Command::new("sh").arg("-n").arg(&script))?;
    }
    let bash = tree.join("usr/share/bash-completion/completions/wardctl");
    if runs("bash") {
        output(Command::new("bash").arg("-n").arg(bash))?;
    }
    Ok(())
}

/// Every page must be one that man can set.
fn manual(tree: &Path) -> anyhow::Result<()> {
    for folder in ["man1", "man8"] {
        for page in fs::read_dir(tree.join("usr/share/man").join(folder))? {
            let mut lint = Command::new("mandoc");
            output(lint.args(["-Tlint", "-Werror"]).arg(page?.path()))?;
        }
    }
    Ok(())
}

/// The unit, with the program of the package in the place where it will be.
fn unit(tree: &Path) -> anyhow::Result<()> {
    if !runs("systemd-analyze") {
        println!("skipped: unit: no systemd-analyze");
        return Ok(());
    }
    let unit = tree.join("usr/lib/systemd/system/wardlined.service");
    let mut security = Command::new("systemd-analyze");
    security
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE}"))
        .arg(&unit);
    let told = output(&mut security)?;
    if let Some(line) = told.lines().rfind(|line| line.contains("exposure level")) {
        step::title(line.trim());
    }
    let scratch = tree.join("wardlined.service");
    let program = tree.join("usr/sbin/wardlined").display().to_string();
    fs::write(
        &scratch,
        fs::read_to_string(&unit)?.replace("/usr/sbin/wardlined", &program),
    )?;
    let mut verify = Command::new("systemd-analyze");
    verify
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&scratch);
    let result = output(&mut verify);
    fs::remove_file(&scratch)?;
    result.map(drop)
}

/// The same programs make the same bytes.
fn reproducible(root: &Path, programs: &Programs, package: &Package) -> anyhow::Result<()> {
    let other = home(root).join("again");
    super::stage::folder(&other)?;
    let tree = other.join("stage");
    let stage = Stage::fill(root, &tree, programs, version(), time(root)?)?;
    let again = archive::write(root, &stage, &other)?;
    for (one, two) in [
        (&package.deb, &again.deb),
        (&package.tarball, &again.tarball),
    ] {
        let same = fs::read(one)? == fs::read(two)?;
        ensure!(same, "{} is not what it was before", two.display());
    }
    fs::remove_dir_all(&other)?;
    Ok(())
}

/// Errors only: warnings are of a taste that changes with its version.
fn lintian(package: &Package) -> anyhow::Result<()> {
    let mut lint = Command::new("lintian");
    lint.args([
        "--allow-root",
        "--fail-on",
        "error",
        "--no-tag-display-limit",
    ]);
    output(lint.arg(&package.deb)).map(drop)
}

/// Whether there is a program of this name.
fn runs(program: &str) -> bool {
    let mut which = Command::new("sh");
    which
        .args(["-c", "command -v \"$0\"", program])
        .stdout(Stdio::null());
    which.status().is_ok_and(|status| status.success())
}
