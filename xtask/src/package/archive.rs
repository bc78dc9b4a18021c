//! A Debian package and a tarball of a staged tree, the same bytes each time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{
    Package, output,
    stage::{MAINTAINER, Stage, folder, mode},
};

/// Scripts that dpkg runs.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Writes both into a folder.
///
/// # Errors
/// When a tool refuses.
pub(super) fn write(root: &Path, stage: &Stage, to: &Path) -> anyhow::Result<Package> {
    let architecture = stage.architecture;
    let version = &stage.version;
    let package = Package {
        deb: to.join(format!("wardline_{version}_{architecture}.deb")),
        tarball: to.join(format!("wardline-{version}-{architecture}.tar.gz")),
        architecture,
    };
    let tree = &stage.tree;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--sort=name", "--format=gnu"])
        .args(["--owner=0", "--group=0", "--numeric-owner"])
        .arg(format!("--mtime=@{}", stage.time))
        .arg(format!("--transform=s,^\\.,wardline-{version},"))
        .arg("--file")
        .arg(&package.tarball)
        .arg("--directory")
        .arg(tree)
        .arg(".")
        .env("GZIP", "-n");
    output(&mut tar)?;

    let sums = sums(tree)?;
    let size = installed_size(tree)?;
    let control = tree.join("DEBIAN");
    folder(&control)?;
    let text = fs::read_to_string(root.join("packaging/debian/control"))?;
    let text = text
        .replace("{version}", version)
        .replace("{architecture}", architecture)
        .replace("{maintainer}", MAINTAINER)
        .replace("{libraries}", &libraries(stage, &to.join("shlibs"))?)
        .replace("{size}", &size.to_string());
    for (name, text, bits) in [
        ("control", text, 0o644),
        ("md5sums", sums, 0o644),
        (
            "conffiles",
            "/etc/wardline/wardlined.toml\n".to_owned(),
            0o644,
        ),
    ] {
        fs::write(control.join(name), text)?;
        mode(&control.join(name), bits)?;
    }
    for name in SCRIPTS {
        let to = control.join(name);
        fs::copy(root.join("packaging/debian").join(name), &to)
            .with_context(|| format!("the script {name}"))?;
        mode(&to, 0o755)?;
    }
    let mut build = Command::new("dpkg-deb");
    build
        .args(["--root-owner-group", "--build", "-Zxz"])
        .arg(tree)
        .arg(&package.deb)
        .env("SOURCE_DATE_EPOCH", stage.time.to_string());
    output(&mut build)?;
    Ok(package)
}

/// What the programs are linked with, as Debian's packages and versions.
fn libraries(stage: &Stage, scratch: &Path) -> anyhow::Result<String> {
    folder(&scratch.join("debian"))?;
    fs::write(
        scratch.join("debian/control"),
        "Source: wardline\n\nPackage: wardline\nArchitecture: any\n",
    )?;
    let mut shlibs = Command::new("dpkg-shlibdeps");
    shlibs.arg("-O").current_dir(scratch);
    shlibs.env("DEB_HOST_ARCH", stage.architecture);
    for program in ["usr/sbin/wardlined", "usr/bin/wardctl"] {
        shlibs.arg(format!("-e{}", stage.tree.join(program).display()));
    }
    let told = output(&mut shlibs)?;
    let (_, libraries) = told
        .trim()
        .split_once('=')
        .context("dpkg-shlibdeps says no libraries")?;
    Ok(libraries.to_owned())
}

/// The sum of every file of a tree but the configuration, which people change.
fn sums(tree: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    below(tree, &mut files)?;
    let mut sum = Command::new("md5sum");
    sum.current_dir(tree);
    for file in files {
        let file = file.strip_prefix(tree)?.to_owned();
        if !file.starts_with("etc") {
            sum.arg(file);
        }
    }
    output(&mut sum)
}

/// In KiB, each file and folder rounded up.
fn installed_size(tree: &Path) -> anyhow::Result<u64> {
    let mut files = Vec::new();
    below(tree, &mut files)?;
    let sizes = files
        .iter()
        .map(|file| Ok(file.metadata()?.len().div_ceil(1024)));
    sizes.sum()
}

/// All files below a folder, in an order that is always the same.
fn below(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|it| it.path()));
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            below(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
