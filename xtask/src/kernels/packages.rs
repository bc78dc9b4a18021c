//! Debian's kernels: which are available, and how one is fetched and unpacked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail, ensure};

use crate::step;

/// The suites that have the kernels; the security suites have newer ones.
const SUITES: [&str; 4] = [
    "bullseye",
    "bookworm",
    "bookworm-backports",
    "trixie-backports",
];
const SECURITY_SUITES: [&str; 2] = ["bullseye-security", "bookworm-security"];

/// The keys of all releases, even those that the machine's own sources don't need.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How long lists of packages are used before they are read again.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// The modules that a lab and its hooks need, each after those that it depends on.
const MODULES: [&str; 9] = [
    "llc",
    "stp",
    "garp",
    "mrp",
    "8021q",
    "bridge",
    "veth",
    "sch_ingress",
    "cls_bpf",
];

/// A kernel to boot, unpacked from its packages.
pub(crate) struct Kernel {
    pub(crate) package: String,
    /// Its own version string, such as `6.1.0-50-amd64`.
    pub(crate) version: String,
    /// The folder of its files.
    pub(crate) home: PathBuf,
}

impl Kernel {
    pub(crate) fn image(&self) -> PathBuf {
        self.home.join("vmlinuz")
    }

    /// The modules that it has as files, in the order to load them; the others are built in.
    pub(crate) fn modules(&self) -> Vec<PathBuf> {
        let files = MODULES.map(|name| self.home.join(format!("{name}.ko")));
        files.into_iter().filter(|file| file.is_file()).collect()
    }
}

/// apt with separate sources, lists and cache.
pub(crate) struct Apt {
    home: PathBuf,
}

impl Apt {
    /// Reads the lists of the suites that have kernels.
    ///
    /// # Errors
    /// When this is not Debian, or no mirror is known or reachable.
    pub(crate) fn open(home: &Path) -> anyhow::Result<Self> {
        let apt = Self {
            home: home.to_owned(),
        };
        for directory in ["lists/partial", "cache/archives/partial", "sources.list.d"] {
            fs::create_dir_all(home.join(directory))
                .with_context(|| format!("making {}", home.display()))?;
        }
        let sources = sources()?;
        let list = home.join("sources.list");
        let stamp = home.join("read");
        let fresh = fs::read_to_string(&list).is_ok_and(|old| old == sources)
            && stamp
                .metadata()
                .and_then(|file| file.modified())
                .is_ok_and(|then| {
                    SystemTime::now()
                        .duration_since(then)
                        .is_ok_and(|age| age < FRESH)
                });
        if !fresh {
            fs::write(&list, sources)?;
            let update = step::wait(
                "the lists of Debian's kernels",
                apt.apt("apt-get").arg("update"),
            );
            // The other suites can still be used if one is gone.
            match update {
                Ok(()) => fs::write(stamp, "")?,
                Err(error) => step::title(format!("not all lists could be read: {error:#}")),
            }
        }
        Ok(apt)
    }

    /// Installs packages from the backports of the machine's release; removes none.
    ///
    /// # Errors
    /// When they are not available, or do not fit the installed packages.
    pub(crate) fn install_backports(&self, packages: &[&str]) -> anyhow::Result<()> {
        let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
        let name = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .context("the release has no name")?;
        let suite = format!("{name}-backports");
        let mut install = self.apt("apt-get");
        install
            .args(["--quiet", "--yes", "install", "--no-remove"])
            .args(["--no-install-recommends", "--target-release", &suite])
            .args(packages);
        let what = format!("apt-get install {} of {suite}", packages.join(" "));
        step::wait(&what, &mut install)
    }

    /// The package of the newest kernel, of a series or of all.
    ///
    /// # Errors
    /// When no suite has one.
    pub(crate) fn newest(&self, series: Option<&str>) -> anyhow::Result<String> {
        let names = output(self.apt("apt-cache").args(["pkgnames", "linux-image-"]))?;
        newest(names.lines(), series).context("no suite has a package of it")
    }

    /// Fetches a kernel, unless it is there, and unpacks what a guest needs.
    ///
    /// # Errors
    /// When apt can't fetch it, or its packages hold no kernel.
    pub(crate) fn kernel(&self, home: &Path, package: &str) -> anyhow::Result<Kernel> {
        let version = version(package).context("not a kernel's package")?;
        let kernel = Kernel {
            package: package.to_owned(),
            version: version.to_owned(),
            home: home.join(version),
        };
        if kernel.image().is_file() {
            return Ok(kernel);
        }
        let scratch = home.join(format!("{version}.part"));
        remove(&scratch)?;
        fs::create_dir_all(&scratch)?;
        let mut packages = vec![package.to_owned()];
        packages.extend(self.parts(package, version)?);
        let mut fetch = self.apt("apt-get");
        fetch.arg("download").args(&packages).current_dir(&scratch);
        step::wait(&format!("fetching {package}"), &mut fetch)?;
        take_apart(&scratch)?;
        remove(&kernel.home)?;
        fs::rename(&scratch, &kernel.home)?;
        Ok(kernel)
    }

    /// From 7.1 on the image and the modules are separate packages of the same version.
    fn parts(&self, package: &str, version: &str) -> anyhow::Result<Vec<String>> {
        let shown = output(
            self.apt("apt-cache")
                .args(["show", "--no-all-versions", package]),
        )?;
        Ok(parts(&shown, version))
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.stdin(Stdio::null())
            .env("DEBIAN_FRONTEND", "noninteractive");
        for (option, place) in [
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "sources.list.d"),
        ] {
            apt.arg("--option")
                .arg(format!("{option}={}", self.home.join(place).display()));
        }
        for option in [
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            // The lists of a release at its end are no longer signed again.
            "Acquire::Check-Valid-Until=false",
            // apt has to write below `target`, which only its owner can.
            "APT::Sandbox::User=root",
        ] {
            apt.args(["--option", option]);
        }
        apt
    }
}

/// One line for each suite, with the mirrors of the machine's own sources.
fn sources() -> anyhow::Result<String> {
    let mut ask = Command::new("apt-get");
    ask.args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]);
    let known = output(&mut ask).context("apt says no sources")?;
    source_lines(&known, Path::new(KEYRING).is_file())
        .context("the machine's apt sources name no mirror of Debian (or apt-get update never ran)")
}

fn source_lines(known: &str, keyring: bool) -> Option<String> {
    let place = |security: bool| {
        known.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (origin, place, release) = (words.next()?, words.next()?, words.next()?);
            let fits = origin == "Debian" && release.ends_with("-security") == security;
            fits.then_some(place)
        })
    };
    let signed = if keyring {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    let line = |place: &str, suite: &str| format!("deb {signed}{place} {suite} main\n");
    let main = place(false)?;
    let mut lines: String = SUITES.iter().map(|suite| line(main, suite)).collect();
    if let Some(security) = place(true) {
        lines.extend(SECURITY_SUITES.iter().map(|suite| line(security, suite)));
    }
    Some(lines)
}

fn newest<'a>(names: impl Iterator<Item = &'a str>, series: Option<&str>) -> Option<String> {
    let series = series.map(numbers).unwrap_or_default();
    let kernels = names.filter_map(|name| Some((numbers(version(name)?), name)));
    kernels
        .filter(|(numbers, _)| numbers.starts_with(&series))
        .max()
        .map(|(_, name)| name.to_owned())
}

/// The version of a plain kernel for this processor; none for cloud or real-time kernels, or for a
/// metapackage of the newest kernel.
fn version(package: &str) -> Option<&str> {
    let version = package.strip_prefix("linux-image-")?;
    let number = version.strip_suffix("-amd64")?;
    let plain = number
        .split(|letter: char| !letter.is_ascii_alphabetic())
        .all(|word| matches!(word, "" | "deb" | "bpo"));
    (plain && numbers(number).len() > 2).then_some(version)
}

/// The numbers in a version, by which versions are ordered.
pub(crate) fn numbers(version: &str) -> Vec<u32> {
    let version = version.strip_suffix("-amd64").unwrap_or(version);
    version
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn parts(shown: &str, version: &str) -> Vec<String> {
    let depends = shown
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "));
    let names = depends.unwrap_or_default().split([',', '|']);
    let names = names.filter_map(|name| name.split_whitespace().next());
    names
        .filter(|name| name.ends_with(version))
        .map(str::to_owned)
        .collect()
}

/// Unpacks the packages in a folder, and keeps only the kernel and the modules that a lab needs.
fn take_apart(folder: &Path) -> anyhow::Result<()> {
    let tree = folder.join("tree");
    for package in files(folder)? {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&package).arg(&tree);
        ensure!(
            unpack.status()?.success(),
            "dpkg-deb can't read {}",
            package.display()
        );
        fs::remove_file(package)?;
    }
    for file in files(&tree)? {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("vmlinuz") {
            fs::copy(&file, folder.join("vmlinuz"))?;
        } else if let Some((module, packing)) = name.split_once(".ko")
            && MODULES.contains(&module)
        {
            fs::write(
                folder.join(format!("{module}.ko")),
                unpacked(&file, packing)?,
            )?;
        }
    }
    remove(&tree)?;
    ensure!(
        folder.join("vmlinuz").is_file(),
        "its packages hold no kernel"
    );
    Ok(())
}

fn unpacked(file: &Path, packing: &str) -> anyhow::Result<Vec<u8>> {
    let program = match packing {
        "" => return Ok(fs::read(file)?),
        ".xz" => "xz",
        ".zst" => "zstd",
        other => bail!("a module that is packed as {other}"),
    };
    let unpacked = Command::new(program)
        .arg("--decompress")
        .arg("--stdout")
        .arg(file)
        .output();
    let unpacked = unpacked.with_context(|| format!("starting {program}"))?;
    ensure!(
        unpacked.status.success(),
        "{program} can't read {}",
        file.display()
    );
    Ok(unpacked.stdout)
}

/// All files below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?
        {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("starting {name}"))?;
    ensure!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const NAMES: [&str; 13] = [
        "linux-image-5.10.0-9-amd64",
        "linux-image-5.10.0-46-amd64",
        "linux-image-5.10.0-46-rt-amd64",
        "linux-image-5.10.0-46-amd64-dbg",
        "linux-image-6.1-amd64",
        "linux-image-6.1.0-50-amd64",
        "linux-image-6.1.0-0.deb11.52-amd64",
        "linux-image-6.12.95+deb12-amd64",
        "linux-image-6.12.117+deb13-amd64",
        "linux-image-6.12.117+deb13-cloud-amd64",
        "linux-image-7.3.4+deb13-amd64",
        "linux-image-7.3.4+deb13-amd64-unsigned",
        "linux-image-amd64",
    ];

    #[test]
    fn the_newest_of_a_series_is_taken() {
        let of = |series| newest(NAMES.into_iter(), series).unwrap();
        assert_eq!(of(Some("5.10")), "linux-image-5.10.0-46-amd64");
        assert_eq!(of(Some("6.1")), "linux-image-6.1.0-50-amd64");
        assert_eq!(of(Some("6.12")), "linux-image-6.12.117+deb13-amd64");
        assert_eq!(of(None), "linux-image-7.3.4+deb13-amd64");
        assert_eq!(newest(NAMES.into_iter(), Some("6.6")), None);
    }

    #[test]
    fn packages_of_the_same_version_belong_to_a_kernel() {
        let shown = "Package: linux-image-7.3.4+deb13-amd64\n\
                     Depends: initramfs-tools (>= 0.120) | linux-initramfs-tool, \
                     linux-binary-7.3.4+deb13-amd64 (= 7.3.4-1), linux-modules-7.3.4+deb13-amd64\n";
        assert_eq!(
            parts(shown, "7.3.4+deb13-amd64"),
            [
                "linux-binary-7.3.4+deb13-amd64",
                "linux-modules-7.3.4+deb13-amd64"
            ]
        );
    }

    #[test]
    fn other_suites_are_where_the_machines_own_are() {
        let known = "Other far://other/ bookworm\n\
                     Debian near://debian/ bookworm\n\
                     Debian near://debian/ bookworm-updates\n\
                     Debian near://security/ bookworm-security\n";
        let lines = source_lines(known, false).unwrap();
        assert!(
            lines.starts_with("deb near://debian/ bullseye main\n"),
            "{lines}"
        );
        assert!(
            lines.ends_with("deb near://security/ bookworm-security main\n"),
            "{lines}"
        );
        assert_eq!(source_lines("Other far://other/ stable\n", false), None);
    }
}
