//! `cargo xtask bench`: what judging a packet costs, beside what others cost on the same machine.
//!
//! Figures are nanoseconds of processor time for a packet on one core. What counts are ratios
//! within a round: all subjects stand side by side and take short turns, each round in another
//! order, so that whatever else the machine does hits all alike.

mod control;
mod goals;
mod kernel;
mod packets;
mod peers;
mod progress;
mod report;
mod road;
mod rounds;
mod wardline;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Parser;

/// Measures Wardline beside its peers, in network namespaces of this machine.
#[derive(Parser)]
struct Arguments {
    /// Only one part
    part: Option<Part>,
    /// Fewer and shorter rounds
    #[arg(long)]
    quick: bool,
    /// Where `bench.json` and `bench.svg` go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What packets cost.
    Packets,
    /// What programs cost by themselves, without the stack and without peers.
    Programs,
    /// What changes cost.
    Control,
}

fn main() -> Result<()> {
    let Arguments { part, quick, out } = Arguments::parse();
    let (rounds, slice) = if quick { (5, 20) } else { (21, 100) };
    let packets = match part {
        Some(Part::Control) => None,
        _ => {
            let slice = Duration::from_millis(slice);
            Some(packets::run(rounds, slice, part == Some(Part::Programs))?)
        }
    };
    let control = match part {
        Some(Part::Packets | Part::Programs) => Vec::new(),
        _ => control::run()?,
    };
    report::write(&out, packets.as_ref(), &control)
}
