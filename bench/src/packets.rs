//! What packets cost: Wardline and its peers, round by round.

use std::time::Duration;

use anyhow::Result;
use wardline_bench_kernel::traffic::{self, LENGTH, Traffic};
use wardline_proto::v1;

use crate::{
    peers,
    progress::say,
    road::{self, Program, Road},
    rounds::{Fate, Rounds, Subject, measure},
    wardline::{Rules, Wardline, fast, policy},
};

/// Devices, rules, elements of sets, and flows that are held.
pub(crate) const MANY: u32 = 100_000;
/// Flows that are active.
const ACTIVE: u32 = 1000;
/// Elements of a set with ranges: more would only make it slower.
const RANGES: u32 = 10_000;
/// A port that no rule allows.
const CLOSED: u32 = 9;

/// The ARP request of the first device for the router's address.
const ARP: [u8; LENGTH] = {
    const HEAD: [u8; 42] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0,
        0, 0, 0, 0, 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 10, 8, 0, 1,
    ];
    let mut frame = [0; LENGTH];
    let mut at = 0;
    while at < HEAD.len() {
        frame[at] = HEAD[at];
        at += 1;
    }
    frame
};

/// What was measured.
pub(crate) struct Measured {
    pub(crate) rounds: Rounds,
    /// Names, with what each is, in the order of the report.
    pub(crate) subjects: Vec<(&'static str, &'static str)>,
    pub(crate) skipped: Vec<String>,
}

/// Sets everything up side by side and measures it; or without what needs the stack.
pub(crate) fn run(rounds: usize, slice: Duration, programs_only: bool) -> Result<Measured> {
    let mut skipped = Vec::new();
    say("routers and their rules");
    let plain = Road::new("bench-plain")?;
    let mut tried = |name: &str, set_up: &dyn Fn(&Road) -> Result<()>| -> Result<Option<Road>> {
        if programs_only {
            return Ok(None);
        }
        let road = Road::new("bench-peer")?;
        match set_up(&road) {
            Ok(()) => Ok(Some(road)),
            Err(error) => {
                skipped.push(format!("skipped: {name}: {error:#}"));
                Ok(None)
            }
        }
    };
    let stateful = tried("nftables", &|road| peers::nft_stateful(road, MANY))?;
    let netdev = tried("nftables netdev", &|road| peers::nft_netdev(road, MANY))?;
    let interval = tried("nftables interval", &|road| {
        peers::nft_interval(road, RANGES)
    })?;
    let ipset = tried("iptables with ipset", &|road| peers::ipset(road, MANY))?;

    say(&format!("wardlined with {MANY} devices and rules"));
    let mut in_driver = Wardline::start("bench-xdp")?;
    in_driver.apply(policy(MANY, Rules::Each, v1::Attach::Xdp))?;
    in_driver.expect_attached(v1::Attached::Xdp)?;
    let mut in_stack = Wardline::start("bench-tc")?;
    in_stack.apply(policy(MANY, Rules::Each, v1::Attach::Tc))?;
    in_stack.expect_attached(v1::Attached::Tc)?;
    let mut few = Wardline::start("bench-few")?;
    few.apply(policy(MANY, Rules::Shared(100), v1::Attach::Xdp))?;
    let mut ahead = Wardline::start("bench-ahead")?;
    ahead.apply(fast(MANY))?;
    ahead.expect_forwarding()?;
    let (xdp, tc, xdp_few) = (in_driver.xdp()?, in_stack.tc()?, few.xdp()?);
    let xdp_ahead = ahead.xdp()?;

    say(&format!("{MANY} established flows"));
    in_driver.road.establish(MANY, MANY, Some(xdp.fd()?))?;
    few.road.establish(MANY, MANY, Some(xdp_few.fd()?))?;
    in_stack.road.establish(MANY, MANY, None)?;
    // Once more: from the second packet on a flow knows its next hop.
    for _ in 0..2 {
        ahead.road.establish(MANY, MANY, Some(xdp_ahead.fd()?))?;
    }
    for road in [&stateful, &ipset].into_iter().flatten() {
        road.establish(MANY, MANY, None)?;
    }

    let mut floor = road::load(&["pass", "parse", "sink"])?;
    let mut own = |name| -> Result<Program> { Ok(Program::Xdp(road::take(&mut floor, name)?)) };
    let (pass, parse, drop) = (own("pass")?, own("parse")?, own("sink")?);
    let known = Traffic {
        flows: ACTIVE,
        devices: MANY,
        ..Traffic::default()
    };
    let all = Traffic {
        flows: MANY,
        ..known
    };
    let denied = Traffic {
        port: CLOSED,
        ..known
    };
    let fresh = Traffic {
        order: traffic::FRESH,
        ..known
    };
    let back = Traffic { reply: 1, ..known };
    // From a port that no device has asked.
    let unasked = Traffic {
        reply: 1,
        port: CLOSED,
        ..fresh
    };
    let (arrives, dropped) = (Fate::Arrives, Fate::Dropped);

    let mut subjects = vec![
        Subject::same(("pass", "empty program"), &plain, &pass, known, arrives),
        Subject::same(("parse", "parse + PASS"), &plain, &parse, known, arrives),
        Subject::same(
            ("wardline hot", "established, one flow"),
            &in_driver.road,
            &xdp,
            known,
            arrives,
        ),
        Subject::same(
            ("wardline tc hot", "the same at TC"),
            &in_stack.road,
            &tc,
            known,
            arrives,
        ),
        Subject::same(
            ("deny hot", "no rule, one flow"),
            &in_driver.road,
            &xdp,
            denied,
            dropped,
        ),
        Subject::again(
            ("control hot", "ARP of a device beyond its budget"),
            &in_driver.road,
            &xdp,
            ARP,
            dropped,
        ),
    ];
    let fd = Some(xdp.fd()?);
    for (label, road, traffic, then, fate) in [
        (
            ("gen + pass", "generator, empty program"),
            &plain,
            known,
            Some(pass.fd()?),
            arrives,
        ),
        (
            ("wardline 1k", "generator, established, 1k of 100k flows"),
            &in_driver.road,
            known,
            fd,
            arrives,
        ),
        (
            ("wardline 100k", "generator, established, 100k flows"),
            &in_driver.road,
            all,
            fd,
            arrives,
        ),
        (
            ("new flows", "generator, new flows"),
            &in_driver.road,
            fresh,
            fd,
            arrives,
        ),
        (
            ("wardline 1k, 100 rules", "the same as with 1k, 100 rules"),
            &few.road,
            known,
            Some(xdp_few.fd()?),
            arrives,
        ),
    ] {
        subjects.push(Subject::generated(label, road, traffic, then, fate)?);
    }
    let live = |label, road, traffic, then, fate| Subject::live(label, road, traffic, then, fate);
    let own = [
        live(("plain", "plain forwarding"), &plain, known, None, arrives),
        live(
            ("plain 100k", "the same, 100k flows"),
            &plain,
            all,
            None,
            arrives,
        ),
        live(
            ("empty", "an empty XDP program"),
            &plain,
            known,
            Some(pass.fd()?),
            arrives,
        ),
        live(
            ("wardline", "Wardline, XDP"),
            &in_driver.road,
            known,
            fd,
            arrives,
        ),
        live(
            ("wardline live 100k", "the same, 100k flows"),
            &in_driver.road,
            all,
            fd,
            arrives,
        ),
        live(
            ("wardline forward", "Wardline, fast-forward"),
            &ahead.road,
            known,
            Some(xdp_ahead.fd()?),
            arrives,
        ),
        live(
            ("forward 100k", "the same, 100k flows"),
            &ahead.road,
            all,
            Some(xdp_ahead.fd()?),
            arrives,
        ),
        live(
            ("wardline tc", "Wardline, TC"),
            &in_stack.road,
            known,
            None,
            arrives,
        ),
        live(
            ("back plain", "plain forwarding, towards devices"),
            &plain,
            back,
            None,
            arrives,
        ),
        live(
            ("back wardline", "Wardline, answers of servers"),
            &in_driver.road,
            back,
            None,
            arrives,
        ),
        live(
            ("back plain new", "plain forwarding, new flows to devices"),
            &plain,
            unasked,
            None,
            arrives,
        ),
        live(
            ("back denied", "Wardline, unasked packets of servers"),
            &in_driver.road,
            unasked,
            None,
            dropped,
        ),
        live(
            ("drop", "an XDP program that drops"),
            &plain,
            known,
            Some(drop.fd()?),
            dropped,
        ),
        live(
            ("deny wardline", "Wardline, denied"),
            &in_driver.road,
            denied,
            fd,
            dropped,
        ),
        live(
            ("first plain", "plain forwarding, new flows"),
            &plain,
            fresh,
            None,
            arrives,
        ),
        live(
            ("first wardline", "Wardline, new flows"),
            &in_driver.road,
            fresh,
            fd,
            arrives,
        ),
    ];
    for subject in own.into_iter().filter(|_| !programs_only) {
        subjects.push(subject?);
    }
    if let Some(road) = &stateful {
        for (label, traffic, fate) in [
            (
                ("nft stateful", "nftables, conntrack + set"),
                known,
                arrives,
            ),
            (("nft stateful 100k", "the same, 100k flows"), all, arrives),
            (("deny nft ct", "the same, denied"), denied, dropped),
            (("first nft", "the same, new flows"), fresh, arrives),
        ] {
            subjects.push(Subject::live(label, road, traffic, None, fate)?);
        }
    }
    if let Some(road) = &netdev {
        for (label, traffic, fate) in [
            (
                ("nft netdev", "nftables, netdev hook + set"),
                known,
                arrives,
            ),
            (("deny nft netdev", "the same, denied"), denied, dropped),
        ] {
            subjects.push(Subject::live(label, road, traffic, None, fate)?);
        }
    }
    if let Some(road) = &interval {
        let label = ("nft interval", "nftables, set with ranges");
        subjects.push(Subject::live(label, road, known, None, arrives)?);
    }
    if let Some(road) = &ipset {
        let label = ("ipset", "iptables, conntrack + ipset");
        subjects.push(Subject::live(label, road, known, None, arrives)?);
    }
    let names = subjects
        .iter()
        .map(|subject| (subject.name, subject.what))
        .collect();
    say(&format!("{} subjects, {rounds} rounds", subjects.len()));
    let rounds = measure(&mut subjects, rounds, slice)?;
    Ok(Measured {
        rounds,
        subjects: names,
        skipped,
    })
}
