//! Measuring: many short slices, each round in another order, compared within their round.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use wardline_bench_kernel::traffic::{self, LENGTH, Traffic};

use crate::road::{Cost, Generator, Program, Road};

/// What happens to every packet of a subject.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives.
    Arrives,
    /// It is dropped.
    Dropped,
}

/// How a subject is given its packets.
enum Feed<'a> {
    /// Into the stack.
    Live(Generator),
    /// To programs alone, each time another packet.
    Generated(Generator),
    /// To one program, always the same packet.
    Same(&'a Program, [u8; LENGTH]),
}

/// One thing that is measured.
pub(crate) struct Subject<'a> {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    road: &'a Road,
    feed: Feed<'a>,
    fate: Fate,
    /// Whether live packets arrive at the devices' side.
    near: bool,
    /// Packets in a slice.
    count: u32,
    /// Whether that number is fixed.
    exact: bool,
}

/// How many packets a slice of new flows has, whatever it takes: new flows are compared by their
/// number, as what they leave behind is part of what they cost. The kernel's table of connections
/// holds 262,144 in each namespace and drops packets when it is full. All new flows of a quick run
/// fit beside the 100,000 established ones, as a busy machine may not remove any in time.
fn exactly(traffic: &Traffic) -> Option<u32> {
    (traffic.order == traffic::FRESH).then_some(16_000)
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_PASS: u32 = u32::MAX;
/// Packets that are enough to estimate how long one takes.
const SAMPLE: u32 = 4096;

impl<'a> Subject<'a> {
    /// Packets that go on into the router's stack, after `then` has judged them, if there is one.
    pub(crate) fn live(
        label: (&'static str, &'static str),
        road: &'a Road,
        traffic: Traffic,
        then: Option<&ProgramFd>,
        fate: Fate,
    ) -> Result<Self> {
        let count = exactly(&traffic);
        let feed = Feed::Live(Generator::new(road, traffic, then)?);
        Ok(Self {
            near: traffic.reply == 1,
            ..Self::fed(label, road, feed, fate, count)
        })
    }

    /// Packets that only programs see.
    pub(crate) fn generated(
        label: (&'static str, &'static str),
        road: &'a Road,
        traffic: Traffic,
        then: Option<&ProgramFd>,
        fate: Fate,
    ) -> Result<Self> {
        let count = exactly(&traffic);
        let feed = Feed::Generated(Generator::new(road, traffic, then)?);
        Ok(Self::fed(label, road, feed, fate, count))
    }

    /// One packet, again and again.
    pub(crate) fn same(
        label: (&'static str, &'static str),
        road: &'a Road,
        program: &'a Program,
        traffic: Traffic,
        fate: Fate,
    ) -> Self {
        let mut frame = [0; LENGTH];
        let mut traffic = Traffic {
            state: 1,
            ..traffic
        };
        for (bytes, word) in frame.chunks_mut(2).zip(traffic::next(&mut traffic)) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Self::again(label, road, program, frame, fate)
    }

    /// One packet of the caller's, again and again.
    pub(crate) fn again(
        label: (&'static str, &'static str),
        road: &'a Road,
        program: &'a Program,
        frame: [u8; LENGTH],
        fate: Fate,
    ) -> Self {
        Self::fed(label, road, Feed::Same(program, frame), fate, None)
    }

    fn fed(
        (name, what): (&'static str, &'static str),
        road: &'a Road,
        feed: Feed<'a>,
        fate: Fate,
        count: Option<u32>,
    ) -> Self {
        Self {
            name,
            what,
            road,
            feed,
            fate,
            near: false,
            count: count.unwrap_or(SAMPLE),
            exact: count.is_some(),
        }
    }

    /// Nanoseconds of processor time for a packet.
    fn slice(&mut self) -> Result<f64> {
        let count = self.count;
        let before = self.road.sunk(self.near)?;
        let (cost, live) = match &mut self.feed {
            Feed::Live(generator) => (generator.push(self.road, count, true)?, true),
            Feed::Generated(generator) => (generator.push(self.road, count, false)?, false),
            Feed::Same(program, frame) => (program.run(self.road, frame, count)?, false),
        };
        self.check(&cost, before, live)?;
        Ok(cost.time.as_secs_f64() * 1e9 / f64::from(count))
    }

    /// Checks that the packets arrived or were dropped, as the subject expects.
    fn check(&self, cost: &Cost, before: u64, live: bool) -> Result<()> {
        let name = self.name;
        if live {
            let awaited = if self.fate == Fate::Arrives {
                u64::from(self.count)
            } else {
                0
            };
            let sunk = self.road.arrived(self.near, before, awaited)?;
            ensure!(
                sunk == awaited,
                "{name}: of {} packets {sunk} arrived, not {awaited}",
                self.count
            );
            return Ok(());
        }
        let passed = matches!(cost.answer, XDP_PASS | TC_PASS);
        let dropped = matches!(cost.answer, XDP_DROP);
        let meant = if self.fate == Fate::Arrives {
            passed
        } else {
            dropped
        };
        ensure!(meant, "{name}: the program answered {}", cost.answer);
        Ok(())
    }

    /// Chooses how many packets make a slice of about this length.
    fn calibrate(&mut self, slice: Duration) -> Result<()> {
        // The first time everything is cold, and few packets cost far more than many.
        for _ in 0..2 {
            let once = self.slice()?.max(1.0);
            if !self.exact {
                let count = slice.as_secs_f64() * 1e9 / once;
                self.count = (count as u32).max(SAMPLE);
            }
        }
        Ok(())
    }
}

/// Nanoseconds by subject, round by round.
pub(crate) type Rounds = Vec<BTreeMap<&'static str, f64>>;

/// Measures all subjects in every round, in another order each time.
pub(crate) fn measure(
    subjects: &mut [Subject<'_>],
    rounds: usize,
    slice: Duration,
) -> Result<Rounds> {
    for subject in subjects.iter_mut() {
        subject.calibrate(slice)?;
    }
    let mut measured = Vec::new();
    // The first round warms up.
    for round in 0..=rounds {
        fastrand::shuffle(subjects);
        let mut costs = BTreeMap::new();
        for subject in subjects.iter_mut() {
            costs.insert(subject.name, subject.slice()?);
        }
        if round != 0 {
            measured.push(costs);
        }
    }
    Ok(measured)
}

/// The median of some figures; none without any.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let upper = *figures.get(middle)?;
    Some(if figures.len() % 2 == 1 {
        upper
    } else {
        (figures[middle - 1] + upper) / 2.0
    })
}
