//! Goals, as ratios of figures from one run.

use std::collections::BTreeMap;

use crate::rounds::{Rounds, median};

type Round = BTreeMap<&'static str, f64>;

/// One ratio and its bounds.
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) must: f64,
    pub(crate) aim: f64,
    /// Whether more is better.
    more: bool,
    ratio: fn(&Round) -> Option<f64>,
}

/// One ratio, measured.
pub(crate) struct Reached {
    pub(crate) what: &'static str,
    pub(crate) bounds: String,
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) verdict: &'static str,
}

impl Goal {
    /// The median of the rounds' ratios; none when a subject was left out.
    pub(crate) fn reached(&self, rounds: &Rounds) -> Option<Reached> {
        let ratios: Vec<f64> = rounds.iter().filter_map(self.ratio).collect();
        let value = median(ratios.clone())?;
        Some(Reached {
            what: self.what,
            bounds: bounds(self.must, self.aim, self.more),
            value,
            low: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            high: ratios.iter().copied().fold(0.0, f64::max),
            verdict: verdict(value, self.must, self.aim, self.more),
        })
    }
}

/// How bounds are written.
pub(crate) fn bounds(must: f64, aim: f64, more: bool) -> String {
    let sign = if more { '≥' } else { '≤' };
    format!("{sign} {must} · {sign} {aim}")
}

/// Which bound a value meets.
pub(crate) fn verdict(value: f64, must: f64, aim: f64, more: bool) -> &'static str {
    let within = |bound: f64| if more { value >= bound } else { value <= bound };
    match (within(must), within(aim)) {
        (_, true) => "aim",
        (true, false) => "must",
        (false, false) => "missed",
    }
}

/// The ratio of two costs.
fn by(round: &Round, one: &str, other: &str) -> Option<f64> {
    Some(round.get(one)? / round.get(other)?)
}

/// A cost without what the generator takes.
fn net(round: &Round, name: &str) -> Option<f64> {
    Some(round.get(name)? - (round.get("gen + pass")? - round.get("pass")?))
}

macro_rules! goals {
    ($(($what:literal, $more:literal, $must:literal, $aim:literal, $ratio:expr)),* $(,)?) => {
        &[$(Goal { what: $what, more: $more, must: $must, aim: $aim, ratio: $ratio }),*]
    };
}

/// Every goal for packets. A ratio of packets in a second is the ratio of costs, inverted.
pub(crate) static GOALS: &[Goal] = goals![
    ("established ÷ (parse + PASS), hot", false, 4.0, 2.5, |r| {
        by(r, "wardline hot", "parse")
    }),
    (
        "the same, 1k of 100k flows, 100k rules",
        false,
        5.0,
        3.2,
        |r| { Some(net(r, "wardline 1k")? / r.get("parse")?) }
    ),
    ("cost at 100k rules ÷ at 100 rules", false, 1.2, 1.1, |r| {
        Some(net(r, "wardline 1k")? / net(r, "wardline 1k, 100 rules")?)
    }),
    ("pps XDP ÷ plain forwarding", true, 0.82, 0.90, |r| by(
        r, "plain", "wardline"
    )),
    ("pps XDP ÷ nftables stateful 100k", true, 1.35, 1.5, |r| by(
        r,
        "nft stateful",
        "wardline"
    )),
    ("pps TC ÷ nftables stateful 100k", true, 1.15, 1.3, |r| by(
        r,
        "nft stateful",
        "wardline tc"
    )),
    ("deny pps ÷ nftables netdev", true, 1.6, 2.5, |r| by(
        r,
        "deny nft netdev",
        "deny wardline"
    )),
    ("deny pps ÷ nftables ct", true, 6.0, 10.0, |r| by(
        r,
        "deny nft ct",
        "deny wardline"
    )),
    ("first packets ÷ nftables ct + set", true, 1.6, 2.0, |r| by(
        r,
        "first nft",
        "first wardline"
    )),
    ("fast-forward pps ÷ plain", true, 2.0, 3.0, |r| by(
        r,
        "plain",
        "wardline forward"
    )),
    (
        "fast-forward pps ÷ nftables stateful",
        true,
        3.4,
        5.0,
        |r| by(r, "nft stateful", "wardline forward")
    ),
    ("fast-forward, 100k flows ÷ plain", true, 1.2, 1.8, |r| by(
        r,
        "plain 100k",
        "forward 100k"
    )),
];
