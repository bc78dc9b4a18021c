//! Which entries open connections, and which are only about the answers to them.
//!
//! MUD lists both directions of a connection. A flow here has its replies with it, so an entry about
//! answers makes no rule of its own: one would let the other end open connections, too.

use crate::entry::{Direction, Entry, Match};

/// What an entry that lets through is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It opens.
    Opens,
    /// It opens towards the device, by TCP, and nothing in the file says that this is meant.
    MayOpen,
    /// It is the answers to another entry, if there is one.
    Answers(Option<usize>),
}

const ECHO: [u8; 2] = [8, 128];
const ECHO_REPLY: [u8; 2] = [0, 129];

/// What the entry at a place is about.
pub(crate) fn part(entries: &[Entry], at: usize, own: &Match) -> Part {
    let direction = entries[at].direction;
    let others = || {
        let others = entries.iter().enumerate();
        let others = others.filter(move |(_, it)| it.accepts && it.direction != direction);
        others.filter_map(|(at, it)| Some((at, it.matches.as_ref().ok()?)))
    };
    if let Some((kind, _)) = own.icmp
        && ECHO_REPLY.contains(&kind)
    {
        let asks = |it: &Match| {
            it.peer == own.peer
                && it.family == own.family
                && it.protocol == own.protocol
                && it.icmp.is_none_or(|(kind, _)| ECHO.contains(&kind))
        };
        return Part::Answers(others().find(|it| asks(it.1)).map(|it| it.0));
    }
    let mirror = others().find(|(_, it)| is_mirrored(own, it));
    let initiated = own.initiated.or(mirror.and_then(|it| it.1.initiated));
    let place = mirror.map(|it| it.0);
    match initiated {
        Some(opener) if opener == direction => return Part::Opens,
        Some(_) => return Part::Answers(place),
        None => {}
    }
    if mirror.is_none() {
        return match direction {
            Direction::ToDevice if own.protocol.is_none_or(|it| it == 6) => Part::MayOpen,
            _ => Part::Opens,
        };
    }
    // Who names the port that it goes to asks for a service there.
    let opens = match (&own.source, &own.destination) {
        (None, Some(_)) => true,
        (Some(_), None) => false,
        _ => direction == Direction::FromDevice,
    };
    match (opens, direction) {
        (false, _) => Part::Answers(place),
        (true, Direction::ToDevice) if own.protocol.is_none_or(|it| it == 6) => Part::MayOpen,
        (true, _) => Part::Opens,
    }
}

/// Whether two entries of different directions are of the same connections.
fn is_mirrored(one: &Match, other: &Match) -> bool {
    one.family == other.family
        && one.peer == other.peer
        && one.protocol == other.protocol
        && one.source == other.destination
        && one.destination == other.source
        && one.icmp == other.icmp
}
