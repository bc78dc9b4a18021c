//! Holds the workspace to its layers.

use std::path::Path;

use anyhow::{Context as _, bail};
use cargo_metadata::{MetadataCommand, TargetKind};

use super::{FREE, LAYERS, RESERVED, RULES, circles, dependencies, names, source::Source};
use crate::step;

/// Checks the crates' dependencies, what their sources name, and that no modules import each other
/// in a circle.
///
/// # Errors
/// With everything that is not as it should be.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    step::title("layers");
    let metadata = MetadataCommand::new()
        .current_dir(root)
        .no_deps()
        .exec()
        .context("asking cargo for the workspace")?;
    let crates: Vec<_> = metadata.packages.iter().map(Into::into).collect();
    let mut found = dependencies::check(&crates, LAYERS, FREE, RESERVED);
    for package in &metadata.packages {
        for target in &package.targets {
            let is_code = |kind: &TargetKind| matches!(kind, TargetKind::Lib | TargetKind::Bin);
            if !target.kind.iter().any(is_code) {
                continue;
            }
            let source = Source::read(root, target.src_path.as_std_path())?;
            let circles = circles::find(&source);
            found.extend(circles.iter().map(|it| {
                format!(
                    "{}: modules import each other in a circle: {it}",
                    target.name
                )
            }));
            let rules = RULES.iter().filter(|it| it.layer == package.name.as_str());
            found.extend(rules.flat_map(|rule| names::check(&source, rule)));
        }
    }
    match found.as_slice() {
        [] => Ok(()),
        found => bail!(
            "{} things are not as the layers have them (xtask/src/layers.rs):\n  {}",
            found.len(),
            found.join("\n  ")
        ),
    }
}
