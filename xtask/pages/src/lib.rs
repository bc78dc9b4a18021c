//! Pages below `docs/` that are made from the source, and that tests keep up to date.
//!
//! The crate that owns the source has a test whose name begins with `the_page_of_`. It generates
//! the page and calls [`check`]. `cargo xtask pages` runs all of these tests with
//! `WARDLINE_WRITE_PAGES=1`, which makes them write their pages.

use std::{env, fs, path::Path};

/// Compares a page below `docs/` with its expected text, or writes it when asked to.
///
/// # Panics
/// When the page is stale, or can't be read or written.
#[track_caller]
pub fn check(page: &str, expected: &str) {
    // The workspace is two folders above this crate.
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(page);
    if env::var_os("WARDLINE_WRITE_PAGES").is_some_and(|value| value == "1") {
        let written = fs::write(&path, expected);
        return written.unwrap_or_else(|error| panic!("can't write docs/{page}: {error}"));
    }
    let found =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("can't read docs/{page}: {error}"));
    if let Some(difference) = difference(&found, expected) {
        panic!("docs/{page} is stale: {difference}; `cargo xtask pages` writes it anew");
    }
}

/// The first line in which two texts differ.
fn difference(found: &str, expected: &str) -> Option<String> {
    if found == expected {
        return None;
    }
    let same = found.lines().zip(expected.lines());
    let number = same
        .take_while(|(found, expected)| found == expected)
        .count();
    let line = |text: &str| text.lines().nth(number).unwrap_or("the end").to_owned();
    Some(format!(
        "line {} is {:?} and should be {:?}",
        number + 1,
        line(found),
        line(expected)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_told() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(
            difference("a\nb\n", "a\nc\n").as_deref(),
            Some("line 2 is \"b\" and should be \"c\"")
        );
        assert_eq!(
            difference("a\n", "a\nc\n").as_deref(),
            Some("line 2 is \"the end\" and should be \"c\"")
        );
    }
}
