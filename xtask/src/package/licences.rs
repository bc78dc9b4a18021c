//! The licences of the crates that are linked into the programs, with their texts: they ask to be told
//! wherever the programs are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// The crates that are programs, and whether each runs on the router's own platform; the kernel's do not.
const PROGRAMS: [(&str, bool); 3] = [
    ("wardline-daemon", true),
    ("wardline-cli", true),
    ("aya-ebpf", false),
];

/// How the files begin that a crate puts its licence into.
const FILES: [&str; 4] = ["LICENSE", "LICENCE", "COPYING", "NOTICE"];

/// A page with each crate, its licence, and each text once, with the crates that it belongs to.
///
/// # Errors
/// When a crate names no licence, or cargo can't tell.
pub(super) fn page(root: &Path, architecture: &str) -> anyhow::Result<String> {
    let router = match architecture {
        "arm64" => "aarch64-unknown-linux-gnu",
        _ => "x86_64-unknown-linux-gnu",
    };
    let mut crates: BTreeMap<(String, String), (String, Vec<String>)> = BTreeMap::new();
    for (program, on_router) in PROGRAMS {
        let metadata = metadata(root, on_router.then_some(router))?;
        for package in linked(&metadata, program)? {
            // Those of this project are under the licences of the whole.
            if package.source.is_none() {
                continue;
            }
            let licence = package.license.clone();
            let licence = licence.with_context(|| format!("{}: has no licence", package.name))?;
            let key = (package.name.to_string(), package.version.to_string());
            crates.insert(key, (licence, texts(package)?));
        }
    }
    ensure!(!crates.is_empty(), "no crate is linked into the programs");
    let mut page =
        "Crates in wardlined and wardctl, and their licences. The texts follow.\n\n".to_owned();
    let mut owners: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((name, version), (licence, texts)) in &crates {
        page += &format!("{name} {version}: {licence}\n");
        for text in texts {
            owners
                .entry(text)
                .or_default()
                .push(format!("{name} {version}"));
        }
    }
    for (text, owners) in owners {
        page += &format!("\n{}\n{}\n\n{text}\n", "-".repeat(72), owners.join(", "));
    }
    Ok(page)
}

fn metadata(root: &Path, platform: Option<&str>) -> anyhow::Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.current_dir(root);
    let mut options = vec!["--locked".to_owned()];
    if let Some(platform) = platform {
        options.extend(["--filter-platform".to_owned(), platform.to_owned()]);
    }
    Ok(command.other_options(options).exec()?)
}

/// The crates of a program, and those that they use. What only builds or tests need is not linked.
fn linked<'a>(metadata: &'a Metadata, program: &str) -> anyhow::Result<Vec<&'a Package>> {
    let resolve = metadata
        .resolve
        .as_ref()
        .context("cargo resolved nothing")?;
    let packages: BTreeMap<&PackageId, &Package> =
        metadata.packages.iter().map(|it| (&it.id, it)).collect();
    let first = metadata
        .packages
        .iter()
        .find(|it| it.name.as_str() == program);
    let mut next = vec![&first.with_context(|| format!("no crate {program}"))?.id];
    let mut found = BTreeSet::new();
    while let Some(id) = next.pop() {
        let macros = packages[id]
            .targets
            .iter()
            .any(cargo_metadata::Target::is_proc_macro);
        if macros || !found.insert(id) {
            continue;
        }
        let node = resolve.nodes.iter().find(|node| node.id == *id);
        let uses = node.into_iter().flat_map(|node| &node.deps);
        let uses = uses.filter(|it| {
            let mut kinds = it.dep_kinds.iter();
            kinds.any(|kind| kind.kind == DependencyKind::Normal)
        });
        next.extend(uses.map(|it| &it.pkg));
    }
    Ok(found.into_iter().map(|id| packages[id]).collect())
}

/// The texts that a crate comes with, in the order of their files.
fn texts(package: &Package) -> anyhow::Result<Vec<String>> {
    let folder = package
        .manifest_path
        .parent()
        .context("a manifest is in a folder")?;
    let mut files: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    let is_licence = |entry: &&fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().to_uppercase();
        FILES.iter().any(|it| name.starts_with(it)) && entry.path().is_file()
    };
    let texts = files.iter().filter(is_licence).map(|entry| {
        let text = fs::read_to_string(entry.path());
        let text = text.with_context(|| format!("reading {}", entry.path().display()))?;
        Ok(text.trim_end().to_owned())
    });
    texts.collect()
}
