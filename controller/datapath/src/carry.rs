//! Takes over what another version has in its tables: flows, learned addresses, counters.
//!
//! The other version's programs judge, with its tables, until each hook's program is replaced. So what it
//! has is copied before ([`Datapath::begin_carrying`]), and what changed meanwhile afterwards
//! ([`Datapath::finish_carrying`]); then its tables are removed. A daemon that dies in between leaves both
//! versions' tables, and the next one does the same again.
//!
//! Fields are found by name. Numbers of devices and rules mean the same in both versions, because the
//! store keeps them by name; numbers of interfaces, because they are carried too. What policy said of a
//! flow is not believed: it is asked again for the flow's next packet.

mod records;
mod tables;

use std::{collections::HashMap, mem};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use wardline_ebpf::abi::{Carried, gauge};

use self::records::Records;
use crate::{
    Datapath,
    carrying::{Carrying, Known},
    error::{DatapathError, Result, program_error},
    fault,
    layout::Layout,
    maps::{get, program, set, write},
    slots::grace,
};

/// Buckets that one call reads.
const BUCKETS: u32 = 512;

/// What was taken over from one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The version, as its folder is called.
    pub version: String,
    /// Flows.
    pub flows: usize,
    /// Flows for which there was no room.
    pub left: u32,
    /// Learned addresses.
    pub learned: usize,
    /// What could not be taken over, and why.
    pub problems: Vec<String>,
}

/// Which flows are carried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Those that are not known yet, before programs are replaced.
    Before,
    /// Those that are not known yet, and what the others have counted since.
    After,
}

impl Datapath {
    /// Copies what other versions have. To be called when tables are in force, and before programs are
    /// replaced. Never fails as a whole: what can't be copied is a problem of the report.
    pub fn begin_carrying(&mut self) -> Vec<Report> {
        let others = mem::take(&mut self.others);
        let mut reports = Vec::new();
        for other in others {
            let mut report = Report {
                version: other.version(),
                ..Report::default()
            };
            let layout = match other.layout() {
                _ if self.distrusts_numbers => {
                    Err("the policy was lost, and with it what its numbers mean".to_owned())
                }
                Ok(Some(layout)) => Ok(layout),
                Ok(None) => Err("it does not say what form its tables have".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            let mut carrying = Carrying {
                other,
                layout: layout.as_ref().ok().cloned(),
                known: HashMap::new(),
            };
            match layout {
                Ok(layout) => self.copy(&mut carrying, &layout, &mut report),
                Err(problem) => report.problems.push(problem),
            }
            self.carrying.push(carrying);
            reports.push(report);
        }
        reports
    }

    /// Takes over nothing: the numbers of devices and rules in other versions' tables are not those that
    /// the policy will have.
    pub fn distrust_numbers(&mut self) {
        self.distrusts_numbers = true;
    }

    fn copy(&mut self, carrying: &mut Carrying, layout: &Layout, report: &mut Report) {
        let mut problems = Vec::new();
        let mut note = |done: Result<()>| problems.extend(done.err());
        let learned = self.copy_learned(&carrying.other, layout);
        note(learned.map(|count| report.learned = count));
        note(self.copy_tables(&carrying.other, layout));
        fault::step("learned-carried");
        // The second time is short, so few flows open between it and the new programs.
        for _ in 0..2 {
            note(self.copy_flows(carrying, layout, Pass::Before));
        }
        fault::step("flows-carried");
        note(self.count_learned_anew());
        note(self.adopt_there(&carrying.other));
        let left = get(&self.ebpf, "GAUGES", gauge::NOT_CARRIED);
        note(left.map(|left| report.left = left));
        report.flows = carrying.known.len();
        let problems = problems.iter().map(DatapathError::to_string);
        report.problems.extend(problems);
    }

    /// Copies what has changed since [`begin_carrying`](Self::begin_carrying), and removes the other
    /// versions' tables, once none of their programs judges any more.
    pub fn finish_carrying(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        for mut carrying in mem::take(&mut self.carrying) {
            if carrying.other.has_links() {
                self.carrying.push(carrying);
                continue;
            }
            fault::step("all-replaced");
            // Until then a program that was replaced may still write.
            grace();
            let before = carrying.known.len();
            let mut report = Report {
                version: carrying.other.version(),
                ..Report::default()
            };
            if let Some(layout) = carrying.layout.clone() {
                let problems = self.copy_the_rest(&mut carrying, &layout);
                let problems = problems.iter().map(DatapathError::to_string);
                report.problems.extend(problems);
            }
            fault::step("counters-carried");
            if let Err(error) = carrying.other.remove_all() {
                report.problems.push(error.to_string());
            }
            report.flows = carrying.known.len() - before;
            reports.push(report);
        }
        reports
    }

    fn copy_the_rest(&mut self, carrying: &mut Carrying, layout: &Layout) -> Vec<DatapathError> {
        let done = [
            self.copy_flows(carrying, layout, Pass::After),
            self.copy_learned(&carrying.other, layout).map(drop),
            self.count_learned_anew(),
            self.move_counters(&carrying.other, layout),
        ];
        done.into_iter().filter_map(Result::err).collect()
    }

    /// Whether another version's tables have to be taken over still.
    pub fn carries(&self) -> bool {
        !self.others.is_empty() || !self.carrying.is_empty()
    }

    fn copy_flows(&mut self, carrying: &mut Carrying, layout: &Layout, pass: Pass) -> Result<()> {
        let Carrying { other, known, .. } = carrying;
        let Some(table) = other.table("FLOWS")? else {
            return Ok(());
        };
        let unlisted = match other.table("SETTINGS")? {
            Some(settings) => settings.lookup(&0u32.to_ne_bytes())?,
            None => None,
        };
        let unlisted = unlisted.and_then(|it| Records::unlisted(layout, &it));
        let here = self.reader.settings()?.unlisted;
        let records = Records::find(layout, [unlisted.unwrap_or(here), here]);
        let records = records.filter(|it| it.bucket == table.value);
        let records = records.ok_or_else(|| DatapathError::Incompatible(other.pin("FLOWS")))?;
        let mut batch = Vec::new();
        for from in (0..table.entries).step_by(BUCKETS as usize) {
            let buckets = table.some(from, BUCKETS.min(table.entries - from))?;
            for flow in buckets.chunks(records.bucket).flat_map(|it| records.of(it)) {
                let now = Known::of(&flow);
                batch.push(match (known.get(&flow.key).copied(), pass) {
                    (Some(_), Pass::Before) => continue,
                    (Some(before), Pass::After) if before == now => continue,
                    (Some(before), Pass::After) => before.since(&flow),
                    (None, Pass::Before) => flow,
                    (None, Pass::After) => Carried {
                        what: Carried::ADD,
                        ..flow
                    },
                });
                known.insert(flow.key, now);
            }
            if batch.len() >= Carried::AT_ONCE as usize {
                self.carry(&batch)?;
                batch.clear();
            }
        }
        self.carry(&batch)
    }

    /// Puts records into this version's tables.
    pub(crate) fn carry(&mut self, records: &[Carried]) -> Result<()> {
        for records in records.chunks(Carried::AT_ONCE as usize) {
            let count = records.len() as u32;
            let keys: Vec<u32> = (0..count).collect();
            write(&mut self.ebpf, "CARRIED", &keys, records, |ebpf, at, it| {
                set(ebpf, "CARRIED", at, it)
            })?;
            set(&mut self.ebpf, "GAUGES", gauge::CARRIED, 0u32)?;
            self.carry_all(count)?;
        }
        Ok(())
    }

    fn carry_all(&mut self, count: u32) -> Result<()> {
        // A signal ends a run early.
        const TRIES: u32 = 100;
        let mut failed = None;
        for _ in 0..TRIES {
            let done: u32 = get(&self.ebpf, "GAUGES", gauge::CARRIED)?;
            if done >= count {
                return Ok(());
            }
            let options = TestRunOptions {
                data_in: Some(&[0; 14]),
                repeat: count - done,
                ..TestRunOptions::default()
            };
            let program = program::<SchedClassifier>(&mut self.ebpf, "carry")?;
            failed = program.test_run(options).err();
        }
        match failed {
            Some(error) => Err(program_error("carry")(error)),
            None => Err(DatapathError::Missing("carry")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(packets: [u32; 2], bytes: [u64; 2]) -> Carried {
        Carried {
            packets,
            bytes,
            counted_packets: 2,
            counted_bytes: 200,
            ..Carried::default()
        }
    }

    #[test]
    fn only_what_was_counted_since_is_carried_again() {
        let known = Known::of(&flow([3, 1], [300, 100]));
        let since = known.since(&flow([5, 1], [500, 100]));
        assert_eq!((since.packets, since.bytes), ([2, 0], [200, 0]));
        assert_eq!((since.counted_packets, since.counted_bytes), (0, 0));
        assert_eq!(since.what, Carried::SINCE);
    }

    #[test]
    fn of_a_flow_that_began_anew_all_is_new() {
        let known = Known::of(&flow([3, 1], [300, 100]));
        let since = known.since(&flow([1, 1], [60, 90]));
        assert_eq!((since.packets, since.bytes), ([1, 1], [60, 90]));
    }
}
