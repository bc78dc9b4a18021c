//! The tree of files as they are on a machine that has the package.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use super::{cross, licences, output};
use crate::{build::Programs, step};

/// Pages for operators, which are worth having where there is no network.
const PAGES: [&str; 8] = [
    "configuration.md",
    "install.md",
    "operations.md",
    "policy.md",
    "reasons.md",
    "recipes.md",
    "security.md",
    "wardctl.md",
];

/// Scripts of shells: which, and where each is looked for.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/wardctl"),
    ("fish", "usr/share/fish/vendor_completions.d/wardctl.fish"),
    ("zsh", "usr/share/zsh/vendor-completions/_wardctl"),
];

/// Who answers for the package.
pub(super) const MAINTAINER: &str = "The Wardline authors <wardline@packages.invalid>";

const DOC: &str = "usr/share/doc/wardline";

/// A tree that is filled.
pub(super) struct Stage {
    pub(super) tree: PathBuf,
    pub(super) version: String,
    /// The time of every file, in seconds since 1970.
    pub(super) time: u64,
    /// What Debian calls the machines that its programs are for.
    pub(super) architecture: &'static str,
}

impl Stage {
    /// Makes the tree anew.
    ///
    /// # Errors
    /// When a file is missing, or a program can't say its pages.
    pub(super) fn fill(
        root: &Path,
        tree: &Path,
        programs: &Programs,
        version: &str,
        time: u64,
    ) -> anyhow::Result<Self> {
        if tree.exists() {
            fs::remove_dir_all(tree).with_context(|| format!("removing {}", tree.display()))?;
        }
        let stage = Self {
            tree: tree.to_owned(),
            version: version.to_owned(),
            time,
            architecture: cross::architecture(&programs.wardlined)?,
        };
        stage.programs(programs)?;
        stage.pages(root, programs)?;
        stage.texts(root)?;
        Ok(stage)
    }

    /// The programs, without what only a debugger reads.
    fn programs(&self, programs: &Programs) -> anyhow::Result<()> {
        for (from, to) in [
            (&programs.wardlined, "usr/sbin/wardlined"),
            (&programs.wardctl, "usr/bin/wardctl"),
        ] {
            let at = self.place(to)?;
            let mut strip = cross::tool("strip", self.architecture);
            strip.args(["--strip-unneeded", "--remove-section=.comment"]);
            step::succeeded("strip", strip.arg("-o").arg(&at).arg(from).status()?)?;
            mode(&at, 0o755)?;
        }
        Ok(())
    }

    /// Manual pages and scripts of shells, as the programs say them.
    fn pages(&self, root: &Path, programs: &Programs) -> anyhow::Result<()> {
        let daemon = output(cross::run(&programs.wardlined, self.architecture).arg("--man"))?;
        self.packed("usr/share/man/man8/wardlined.8", daemon.as_bytes())?;
        let scratch = self.tree.with_extension("man");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        let wardctl = || cross::run(&programs.wardctl, self.architecture);
        output(wardctl().arg("man").arg(&scratch))?;
        for entry in fs::read_dir(&scratch)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            self.packed(
                &format!("usr/share/man/man1/{name}"),
                &fs::read(entry.path())?,
            )?;
        }
        for (shell, at) in SHELLS {
            let script = output(wardctl().args(["completions", shell]))?;
            self.file(at, script.as_bytes(), 0o644)?;
        }
        for page in PAGES {
            self.copy(&root.join("docs").join(page), &format!("{DOC}/{page}"))?;
        }
        Ok(())
    }

    /// Unit, configuration, example, and what Debian wants to know.
    fn texts(&self, root: &Path) -> anyhow::Result<()> {
        let packaging = root.join("packaging");
        for (from, to) in [
            (
                packaging.join("wardlined.service"),
                "usr/lib/systemd/system/wardlined.service".to_owned(),
            ),
            (
                packaging.join("wardlined.toml"),
                "etc/wardline/wardlined.toml".to_owned(),
            ),
            (
                root.join("examples/clinic.yaml"),
                format!("{DOC}/examples/clinic.yaml"),
            ),
            (
                root.join("proto/wardline/v1/segmentation.proto"),
                "usr/share/wardline/proto/wardline/v1/segmentation.proto".to_owned(),
            ),
            (
                root.join("examples/python/wardline_client.py"),
                format!("{DOC}/examples/wardline_client.py"),
            ),
            (
                packaging.join("debian/lintian-overrides"),
                "usr/share/lintian/overrides/wardline".to_owned(),
            ),
            (
                packaging.join("debian/copyright"),
                format!("{DOC}/copyright"),
            ),
        ] {
            self.copy(&from, &to)?;
        }
        let licences = licences::page(root, self.architecture)?;
        self.packed(&format!("{DOC}/crates"), licences.as_bytes())?;
        let news = fs::read(root.join("CHANGELOG.md"))?;
        self.packed(&format!("{DOC}/NEWS.md"), &news)?;
        let mut date = Command::new("date");
        date.args(["-u", "-R", "-d", &format!("@{}", self.time)])
            .env("LC_ALL", "C");
        let changes = format!(
            "wardline ({}) stable; urgency=medium\n\n  * What has changed is in NEWS.md.\n\n \
             -- {MAINTAINER}  {}\n",
            self.version,
            output(&mut date)?.trim()
        );
        self.packed(&format!("{DOC}/changelog"), changes.as_bytes())
    }

    fn copy(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        let text = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.file(to, &text, 0o644)
    }

    fn file(&self, to: &str, text: &[u8], bits: u32) -> anyhow::Result<()> {
        let at = self.place(to)?;
        fs::write(&at, text).with_context(|| format!("writing {}", at.display()))?;
        mode(&at, bits)
    }

    /// Writes a file as gzip packs it, without a time.
    fn packed(&self, to: &str, text: &[u8]) -> anyhow::Result<()> {
        self.file(&format!("{to}.gz"), &packed(text)?, 0o644)
    }

    /// The place of a file, whose folder is made.
    fn place(&self, to: &str) -> anyhow::Result<PathBuf> {
        let at = self.tree.join(to);
        folder(at.parent().context("a file has a folder")?)?;
        Ok(at)
    }
}

/// Makes a folder that everybody may enter, whatever the umask.
pub(super) fn folder(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        folder(parent)?;
    }
    fs::DirBuilder::new()
        .mode(0o755)
        .create(path)
        .with_context(|| format!("making {}", path.display()))?;
    mode(path, 0o755)
}

pub(super) fn mode(path: &Path, bits: u32) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(bits))
        .with_context(|| format!("the mode of {}", path.display()))
}

/// What gzip makes of some bytes, without a name and a time.
fn packed(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut gzip = Command::new("gzip")
        .args(["-9", "-n", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting gzip")?;
    let mut input = gzip.stdin.take().context("gzip reads")?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || input.write_all(text));
        let output = gzip.wait_with_output()?;
        ensure!(output.status.success(), "gzip: {}", output.status);
        ensure!(
            writer.join().is_ok_and(|it| it.is_ok()),
            "gzip does not read"
        );
        Ok(output.stdout)
    })
}
