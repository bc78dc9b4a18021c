//! Runs random frames through the oracle, the host and the kernel until there are enough.

use std::{
    path::Path,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{setup, step};

/// Judges `cases` frames, beginning with a seed; without one, with a random seed.
///
/// # Errors
/// When the harness can't be built or started.
pub(crate) fn run(root: &Path, cases: u64, seed: Option<u64>) -> anyhow::Result<ExitCode> {
    setup::run(root)?;
    let seed = match seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    step::title(format!("fuzz: {cases} cases from seed {seed}"));
    // The whole workspace, because with fewer packages cargo would choose other features.
    let mut cargo = step::cargo("test");
    cargo
        .args(["--workspace", "--test", "suite", "--"])
        .args([
            "--exact",
            "packets::fuzz::judges_agree_on_frames",
            "--nocapture",
        ])
        .env("WARDLINE_FUZZ_CASES", cases.to_string())
        .env("WARDLINE_FUZZ_SEED", seed.to_string())
        .current_dir(root);
    // The harness itself reports what it found, and where it has written that.
    Ok(if cargo.status()?.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
