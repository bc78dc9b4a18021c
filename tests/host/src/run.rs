//! Runs of random cases: everything about a policy and its frames comes from one seed, and the
//! seeds of a run follow each other.
//!
//! A mismatch is repeated by `cargo xtask fuzz --seed N --cases 1`, with the seed that it names. It
//! is shrunk and written below `target/fuzz/`.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use wardline_oracle::{dissect, streams::Step};
use wardline_proto::document;

use crate::{
    bench::{Bench, Mismatch},
    case::Case,
    shrink::shrink,
    tally::Tally,
};

/// Frames for one policy.
const FRAMES: usize = 300;

/// Runs all benches at once until there are enough cases; mismatches are shrunk and written below
/// `target/fuzz`.
pub fn run(benches: &mut [Bench], cases: usize, first: u64) -> Tally {
    let start = Instant::now();
    let next = AtomicU64::new(first);
    let all = Mutex::new(Tally::default());
    let told_at = Mutex::new(start);
    thread::scope(|scope| {
        for bench in benches {
            scope.spawn(|| {
                while all.lock().unwrap().cases < cases {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let case = Case::of(seed, FRAMES);
                    let mut tally = Tally::default();
                    let mismatch = bench.run(&case, &mut tally).err();
                    all.lock().unwrap().add(tally);
                    if let Some(mismatch) = mismatch {
                        disagree(bench, &case, *mismatch, &all);
                    }
                    let mut told_at = told_at.lock().unwrap();
                    if told_at.elapsed() > Duration::from_secs(5) {
                        *told_at = Instant::now();
                        let all = all.lock().unwrap();
                        eprintln!(
                            "{} cases, {} policies, {} s, {} mismatches",
                            all.cases,
                            all.policies,
                            start.elapsed().as_secs(),
                            all.mismatches.values().sum::<usize>()
                        );
                    }
                }
            });
        }
    });
    let all = all.into_inner().unwrap();
    all.tell(first, start.elapsed().as_secs());
    all
}

/// Counts a mismatch; the first of its kind is shrunk, written and shown.
fn disagree(bench: &mut Bench, case: &Case, mismatch: Mismatch, all: &Mutex<Tally>) {
    let is_first = {
        let mut all = all.lock().unwrap();
        let count = all.mismatches.entry(mismatch.kind.clone()).or_default();
        *count += 1;
        *count == 1
    };
    if is_first {
        let (case, mismatch) = shrink(bench, case, mismatch);
        let text = told(&case, &mismatch);
        eprintln!("{}:\n{text}", write(case.seed, &text));
    }
}

fn write(seed: u64, text: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz");
    let path = folder.join(format!("mismatch-{seed}.txt"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A case for people: the policy, the frames, and what each judge said of the last one.
fn told(case: &Case, mismatch: &Mismatch) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", mismatch.kind);
    let _ = writeln!(
        text,
        "found with: cargo xtask fuzz --seed {} --cases 1\n\n{}",
        case.seed, mismatch.text
    );
    let _ = writeln!(text, "\n{}", document::policy_to_yaml(&case.policy));
    if !case.quarantined.is_empty() {
        let _ = writeln!(text, "in quarantine: {:?}\n", case.quarantined);
    }
    if !case.ports_cut.is_empty() {
        let _ = writeln!(text, "ports in quarantine: {:?}\n", case.ports_cut);
    }
    if !case.failsafe.is_empty() {
        let _ = writeln!(text, "failsafe: {:?}\n", case.failsafe);
    }
    for step in &case.steps {
        let _ = writeln!(text, "{:?}", step.at);
        if let Some(tag) = step.tag {
            let _ = writeln!(text, "  tag outside the frame: {tag:#06x}");
        }
        let _ = writeln!(text, "  {}", described(step));
        let hex: Vec<String> = step
            .frame
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let _ = writeln!(text, "  {}", hex.concat());
    }
    text
}

fn described(step: &Step) -> String {
    match dissect::frame(&step.frame, step.tag) {
        Ok(frame) => format!("{frame:02x?}").replace('\n', " "),
        Err(malformed) => format!("{malformed:?}"),
    }
}

/// A number that the environment gives.
pub fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

#[cfg(test)]
mod tests {
    use wardline_oracle::random::ROUTER;

    use super::*;

    /// Without a kernel no clock runs on, so rules may expire at this very second.
    #[test]
    fn host_agrees_with_the_oracle_on_frames() {
        let cases = number("WARDLINE_FUZZ_HOST_CASES").map_or(100_000, |cases| cases as usize);
        let seed = number("WARDLINE_FUZZ_SEED").unwrap_or(1 << 32);
        let tally = run(&mut [Bench::host(&ROUTER)], cases, seed);
        assert!(tally.mismatches.is_empty(), "the judges disagree");
    }
}
