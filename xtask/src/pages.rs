//! Writes the pages of `docs/` that are made from the source.

use std::path::Path;

use crate::step;

/// Runs the tests that check the pages so that they write them; see the crate `wardline-pages`.
///
/// # Errors
/// When they can't be built, or a page can't be made or written.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut cargo = step::cargo("test");
    // Without `--package` these are all tests that need no root.
    cargo
        .args(["--quiet", "the_page_of_"])
        .env("WARDLINE_WRITE_PAGES", "1");
    step::wait("pages", cargo.current_dir(root))
}
