//! The initramfs of a guest: programs with the libraries they need, modules, and an `/init`.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::packages::Kernel;
use crate::build::Programs;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// Writes the image that boots a kernel into `/init`.
///
/// # Errors
/// When a program is missing, or the image can't be written.
pub(crate) fn write(
    image: &Path,
    kernel: &Kernel,
    programs: &Programs,
    init: &str,
) -> anyhow::Result<()> {
    let mut archive = Archive::default();
    for folder in ["dev", "etc", "proc", "run", "sys", "tmp", "usr/bin"] {
        archive.folder(folder);
    }
    archive.file("init", init.as_bytes());
    let suite = programs.suite.as_deref().context("cargo built no suite")?;
    let busybox = find("busybox").context("no program busybox")?;
    let ip = find("ip").context("no program ip")?;
    for (at, program) in [
        ("bin/suite", suite),
        ("bin/wardlined", &programs.wardlined),
        ("bin/wardctl", &programs.wardctl),
        ("bin/busybox", &busybox),
        ("bin/ip", &ip),
    ] {
        archive.file(at, &stripped(program, &kernel.home)?);
        for library in libraries(program)? {
            archive.file(library.trim_start_matches('/'), &fs::read(&library)?);
        }
    }
    for module in kernel.modules() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{name}"), &fs::read(&module)?);
    }
    fs::write(image, archive.close()).with_context(|| format!("writing {}", image.display()))
}

/// Where a program is, as a shell would find it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A program without debug information; unchanged where there is no `strip`.
fn stripped(program: &Path, scratch: &Path) -> anyhow::Result<Vec<u8>> {
    let small = scratch.join("stripped");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&small).arg(program);
    let from = match strip.output() {
        Ok(done) if done.status.success() => small.as_path(),
        _ => program,
    };
    fs::read(from).with_context(|| format!("reading {}", from.display()))
}

/// The libraries that a program is linked with; none when it is static.
fn libraries(program: &Path) -> anyhow::Result<Vec<String>> {
    let told = Command::new("ldd")
        .arg(program)
        .output()
        .context("starting ldd")?;
    Ok(paths(&String::from_utf8_lossy(&told.stdout)))
}

fn paths(told: &str) -> Vec<String> {
    let path = |line: &str| {
        let mut words = line.split_whitespace();
        words.find(|word| word.starts_with('/')).map(str::to_owned)
    };
    told.lines().filter_map(path).collect()
}

/// A cpio archive in the form that the kernel unpacks ("newc").
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder and its parents.
    fn folder(&mut self, name: &str) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.folder(parent);
        }
        self.entry(name, FOLDER, &[]);
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.folder(parent);
        }
        self.entry(name, PROGRAM, content);
    }

    fn close(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    /// Adds an entry, unless one with this name exists.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        if !self.names.insert(name.to_owned()) {
            return;
        }
        let inode = self.names.len() as u32;
        let links = if mode == FOLDER { 2 } else { 1 };
        // uid, gid; time; device numbers; the checksum, which this format leaves zero.
        let fields = [
            inode,
            mode,
            0,
            0,
            links,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// # Errors
/// When a program that the image needs is missing.
pub(crate) fn needs(programs: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|name| find(name).is_none())
        .collect();
    ensure!(missing.is_empty(), "not installed: {}", missing.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let told = "\tlinux-vdso.so.1 (0x00007fff)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f11)\n";
        assert_eq!(
            paths(told),
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert!(paths("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn an_archive_is_made_of_aligned_entries() {
        let mut archive = Archive::default();
        archive.file("bin/a", b"12345");
        archive.file("bin/a", b"again");
        let bytes = archive.close();
        let heads: Vec<usize> = (0..bytes.len())
            .filter(|at| bytes[*at..].starts_with(b"070701"))
            .collect();
        // The folder, the file (only once), and the end.
        assert_eq!(heads.len(), 3);
        assert!(heads.iter().all(|at| at % 4 == 0) && bytes.len() % 4 == 0);
        let file = &bytes[heads[1]..heads[2]];
        assert_eq!(&file[6 + 6 * 8..6 + 7 * 8], b"00000005");
        assert_eq!(&file[110..116], b"bin/a\0");
        assert_eq!(&file[116..121], b"12345");
    }
}
