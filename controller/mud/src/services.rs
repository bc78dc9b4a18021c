//! What an entry asks for, as services of a document.

use crate::entry::{Family, Match};

/// What becomes of an entry that opens, by what it asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// These services.
    Services(Vec<String>),
    /// Nothing that needs a rule, and why.
    Nothing(&'static str),
    /// Something that no rule can say, and why.
    Unsayable(&'static str),
}

/// The services of an entry that opens.
pub(crate) fn asked(it: &Match) -> Asked {
    if it.source.is_some() {
        return Asked::Unsayable(
            "it limits the port that packets come from, and a rule without that would let more through",
        );
    }
    if let Some((kind, code)) = it.icmp {
        return icmp(it.family, kind, code);
    }
    let words: &[&str] = match (it.protocol, it.family) {
        (None, Family::V4) => &["tcp/*", "udp/*", "icmp/*"],
        (None, Family::V6) => &["tcp/*", "udp/*", "icmpv6/*"],
        (Some(6 | 17), _) => return Asked::Services(ports(it)),
        (Some(1), _) => &["icmp/*"],
        (Some(58), _) => &["icmpv6/*"],
        (Some(protocol), _) => return Asked::Services(vec![format!("proto/{protocol}")]),
    };
    Asked::Services(words.iter().map(|it| (*it).to_owned()).collect())
}

fn ports(it: &Match) -> Vec<String> {
    let protocol = if it.protocol == Some(6) { "tcp" } else { "udp" };
    let Some(ports) = &it.destination else {
        return vec![format!("{protocol}/*")];
    };
    let word = |(first, last): &(u16, u16)| match (first, last) {
        (0, &u16::MAX) => format!("{protocol}/*"),
        (first, last) if first == last => format!("{protocol}/{first}"),
        (first, last) => format!("{protocol}/{first}-{last}"),
    };
    ports.0.iter().map(word).collect()
}

fn icmp(family: Family, kind: u8, code: Option<u8>) -> Asked {
    let (errors, redirect, name) = match family {
        Family::V4 => (&[3, 4, 11, 12][..], 5, "icmp"),
        Family::V6 => (&[1, 2, 3, 4][..], 137, "icmpv6"),
    };
    if errors.contains(&kind) {
        return Asked::Nothing("errors about flows that are allowed pass without a rule");
    }
    if kind == redirect {
        return Asked::Unsayable("a redirect passes only where the document says that a router is");
    }
    Asked::Services(vec![match code {
        Some(code) => format!("{name}/{kind}/{code}"),
        None => format!("{name}/{kind}"),
    }])
}
