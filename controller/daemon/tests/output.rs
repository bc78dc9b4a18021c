//! What does `wardlined` do when nobody reads what it prints?

use std::{
    io::pipe,
    process::{Command, Stdio},
};

#[test]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let done = Command::new(env!("CARGO_BIN_EXE_wardlined"))
        .args(["--check", "--config", "/dev/null"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.is_empty(), "{done:?}");
}
