//! Writes `docs/packet-matrix.md` from the rows that the suite checks.

use std::{fs, path::Path};

use anyhow::Context as _;

use crate::{setup, step};

/// Makes the suite write the page, and puts the page in its place.
///
/// # Errors
/// When the suite could not be built, or the page not be written.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    setup::run(root)?;
    let written = root.join("target/packet-matrix.md");
    let page = root.join("docs/packet-matrix.md");
    // The output of an earlier run must not be mistaken for this one's.
    drop(fs::remove_file(&written));
    // The whole workspace, because with fewer packages cargo would choose other features.
    let mut cargo = step::cargo("test");
    cargo
        .args(["--workspace", "--lib", "--", "--exact"])
        .arg("matrix::tests::the_page_is_what_the_rows_say")
        .env("WARDLINE_MATRIX_OUT", &written);
    step::wait("packet matrix", cargo.current_dir(root))?;
    fs::copy(&written, &page)
        .with_context(|| format!("copying {} to {}", written.display(), page.display()))?;
    step::title(page.display());
    Ok(())
}
