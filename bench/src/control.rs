//! The cost of changes to a large policy: time until the answer, time from the answer until packets
//! are judged by them, and memory.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde::Serialize;
use wardline_proto::v1;

use crate::{
    goals::{bounds, verdict},
    packets::MANY,
    progress::say,
    rounds::median,
    wardline::{Rules, Wardline, device, policy},
};

/// Rules of the policy that plans are made for, each for its share of the devices.
const LARGE: u32 = 20_000;
/// How often a change is measured.
const CHANGES: Range<u32> = 0..9;

/// One figure and its bounds.
#[derive(Serialize)]
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) bounds: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) verdict: &'static str,
}

/// Applies a whole policy, then changes of one device.
pub(crate) fn run() -> Result<Vec<Figure>> {
    say(&format!(
        "changes of a policy with {MANY} devices and {MANY} rules"
    ));
    let mut wardline = Wardline::start("bench-control")?;
    let mut whole = policy(MANY, Rules::Each, v1::Attach::Xdp);
    let first = wardline.apply(whole.clone())?;
    let (held, _) = wardline.memory()?;
    let mut figures = vec![figure(
        "whole policy, call to answer",
        first.as_secs_f64(),
        "s",
        Some((5.0, 1.0)),
    )];
    let (mut edits, mut enforced) = (Vec::new(), Vec::new());
    for change in CHANGES {
        let device = moved(change);
        edits.push(wardline.put(device.clone())?);
        // Before the change, no packet from its new address passed.
        enforced.push(until(&wardline, &device, true)?);
    }
    let milliseconds = |times: &[Duration]| middle(times).unwrap_or_default() * 1e3;
    let within = Some((10.0, 2.0));
    for (what, times, bounds) in [
        ("one device of many, put, call to answer", &edits, None),
        (
            "one device of many, put, answer to enforced",
            &enforced,
            within,
        ),
    ] {
        figures.push(figure(what, milliseconds(times), "ms", bounds));
    }
    let mut applies = Vec::new();
    for change in CHANGES {
        whole.devices[change as usize] = moved(change + CHANGES.end);
        applies.push(wardline.apply(whole.clone())?);
    }
    figures.push(figure(
        "one device of many, whole document, call to answer",
        milliseconds(&applies),
        "ms",
        None,
    ));
    let (mut quarantines, mut enforced) = (Vec::new(), Vec::new());
    for change in CHANGES {
        let device = moved(change + CHANGES.end);
        quarantines.push(wardline.quarantine(&device.name, true)?);
        enforced.push(until(&wardline, &device, false)?);
        wardline.quarantine(&device.name, false)?;
        until(&wardline, &device, true)?;
    }
    for (what, times, bounds) in [
        ("quarantine, call to answer", &quarantines, None),
        ("quarantine, answer to enforced", &enforced, within),
    ] {
        figures.push(figure(what, milliseconds(times), "ms", bounds));
    }
    let mut large = policy(MANY, Rules::Shared(LARGE), v1::Attach::Xdp);
    wardline.apply(large.clone())?;
    let mut plans = Vec::new();
    for change in CHANGES {
        large.devices[change as usize] = moved(change);
        large.rules[change as usize].services = vec!["tcp/443".to_owned()];
        plans.push(wardline.plan(large.clone())?);
    }
    let seconds = middle(&plans).unwrap_or_default();
    figures.push(figure("plan, 20,000 rules", seconds, "s", None));
    let (after, most) = wardline.memory()?;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let bounds = Some((512.0, 256.0));
    figures.push(figure(
        "daemon, after the first",
        mebibytes(held),
        "MiB",
        bounds,
    ));
    figures.push(figure(
        "daemon, after changes",
        mebibytes(after),
        "MiB",
        bounds,
    ));
    figures.push(figure("daemon, at most", mebibytes(most), "MiB", None));
    figures.push(figure(
        "tables in the kernel",
        mebibytes(wardline.tables()?),
        "MiB",
        None,
    ));
    Ok(figures)
}

/// How long it takes until the packets of a device pass, or no longer do.
fn until(wardline: &Wardline, device: &v1::Device, passes: bool) -> Result<Duration> {
    let (start, frame) = (Instant::now(), wardline.frame_of(device)?);
    while wardline.passes(&frame)? != passes {
        let waited = start.elapsed();
        ensure!(
            waited < Duration::from_secs(5),
            "{} is not judged by its change",
            device.name
        );
    }
    Ok(start.elapsed())
}

fn middle(times: &[Duration]) -> Option<f64> {
    median(times.iter().map(Duration::as_secs_f64).collect())
}

/// A device with another address for each change.
fn moved(change: u32) -> v1::Device {
    let [_, _, a, b] = (0xf000 + change).to_be_bytes();
    v1::Device {
        addresses: vec![format!("10.3.{a}.{b}")],
        ..device(change % CHANGES.end)
    }
}

fn figure(what: &'static str, value: f64, unit: &'static str, bound: Option<(f64, f64)>) -> Figure {
    let (bounds, verdict) = match bound {
        Some((must, aim)) => (bounds(must, aim, false), verdict(value, must, aim, false)),
        None => (String::new(), ""),
    };
    Figure {
        what,
        bounds,
        value,
        unit,
        verdict,
    }
}
