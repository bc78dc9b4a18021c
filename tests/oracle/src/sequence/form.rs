//! Faults of a frame's form, whoever sends it.

use wardline_proto::v1::{DropOrAllow, Reason, Zone};

use super::{
    From, Sequence, Where,
    control::{discovery_length, is_discovery, is_query, is_report},
    flow::{ACK, FIN, Message, RST, SYN},
    is_mapped, whose,
};
use crate::{
    dissect::{self, Content, Fragment, Frame, Ip, Upper},
    oracle::Drop,
};

/// The reasons of form, in the contract's order.
pub(super) const ORDER: [Reason; 6] = [
    Reason::Malformed,
    Reason::UnknownEthertype,
    Reason::IpOptions,
    Reason::ExtensionHeader,
    Reason::Fragment,
    Reason::BadTcpFlags,
];

/// Where authenticators listen (IEEE 802.1X, 11.1.1).
const PAE_GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 3];

fn is_the_routers(at: &Where) -> bool {
    matches!(
        at,
        Where::Leaving {
            from: From::Router,
            ..
        }
    )
}

/// What the zone and the direction of a frame allow in its form.
#[derive(Clone, Copy, Default)]
struct Leave {
    options: bool,
    fragments: bool,
    /// Its form was judged where it entered, or the router itself sends it.
    trusted: bool,
}

impl Sequence<'_> {
    /// The first fault of a frame's form, in the contract's order.
    pub(super) fn form(
        &mut self,
        at: &Where,
        frame: &Frame,
        zone: Option<&str>,
    ) -> Result<(), Drop> {
        let zone = zone.and_then(|name| self.oracle.zone(name));
        let allows = |setting: i32| setting == i32::from(DropOrAllow::Allow);
        let trusted = matches!(
            at,
            Where::Leaving {
                from: From::Router | From::Guarded(_),
                ..
            }
        );
        let leave = Leave {
            options: trusted || zone.is_some_and(|zone| allows(zone.ip_options)),
            fragments: trusted || zone.is_some_and(|zone| allows(zone.fragments)),
            trusted,
        };
        let faults = match &frame.content {
            Content::Arp(Some(_)) => vec![],
            Content::Arp(None) => vec![Reason::Malformed],
            Content::Other(_) if is_the_routers(at) => vec![],
            Content::Other(0x888e)
                if frame.destination == PAE_GROUP || self.oracle.is_own_mac(frame.destination) =>
            {
                vec![]
            }
            // Also what the zone has let pass where it entered.
            Content::Other(number) => {
                let passes = |zone: &Zone| self.oracle.lets_pass(&zone.name, *number);
                if zone.is_some_and(passes) {
                    vec![]
                } else {
                    vec![Reason::UnknownEthertype]
                }
            }
            Content::Ip(ip) => self.ip_faults(leave, frame, ip, at),
        };
        self.faults = faults;
        let mut order = ORDER.into_iter();
        match order.find(|reason| self.faults.contains(reason)) {
            Some(reason) => Err(Drop::because(reason)),
            None => Ok(()),
        }
    }

    fn ip_faults(&mut self, leave: Leave, frame: &Frame, ip: &Ip, at: &Where) -> Vec<Reason> {
        let mut faults = Vec::new();
        if ip.nowhere {
            faults.push(Reason::Malformed);
        }
        faults.extend(option_faults(leave, ip));
        faults.extend(extension_fault(leave, ip));
        if !leave.fragments && ip.extensions.iter().any(|it| it.number == 44) {
            faults.push(Reason::Fragment);
        }
        match ip.fragment {
            // Where fragments are dropped, every one is, whatever it holds.
            Some(_) if !leave.fragments => faults.push(Reason::Fragment),
            // Control traffic and errors fit into one packet (RFC 6980, 5).
            Some(fragment) if !fragment.is_atomic() => {
                faults.extend(fragment_form(fragment));
                if is_report(ip)
                    || is_query(ip)
                    || is_discovery(ip)
                    || Message::of(ip) == Message::Error
                {
                    faults.push(Reason::Fragment);
                }
            }
            _ => {}
        }
        match &ip.upper {
            Upper::Broken => faults.push(Reason::Malformed),
            Upper::Cut => faults.push(Reason::Fragment),
            Upper::Tcp { flags, .. } if !sensible(*flags) => faults.push(Reason::BadTcpFlags),
            Upper::Icmp { kind, body, .. }
                if ip.protocol == 58
                    && !leave.trusted
                    && !discovery_fits(*kind, body, is_mapped(ip.source)) =>
            {
                faults.push(Reason::Malformed);
            }
            _ => {}
        }
        // A fragment's order is checked if it has no other fault; a later one's, if its own form is
        // right.
        let fragment = ip.fragment.filter(|it| leave.fragments && !it.is_atomic());
        if let Some(fragment) = fragment
            && (faults.is_empty() || fragment.offset != 0 && fragment_form(fragment).is_none())
        {
            faults.extend(self.fragment_fault(frame, ip, fragment, at));
        }
        faults
    }

    fn fragment_fault(
        &mut self,
        frame: &Frame,
        ip: &Ip,
        fragment: Fragment,
        at: &Where,
    ) -> Option<Reason> {
        if matches!(
            at,
            Where::Leaving {
                from: From::Guarded(_),
                ..
            }
        ) {
            return (fragment.offset == 8).then_some(Reason::Fragment);
        }
        // Through a port in quarantine none passes, in order or not.
        if fragment.offset != 0 && self.oracle.is_cut_port(at.interface()) {
            return (fragment.offset == 8).then_some(Reason::Fragment);
        }
        let whose = whose(frame, ip, fragment, at);
        let note = self.notes.iter().position(|note| note.whose == whose);
        if fragment.offset == 0 {
            // Two first fragments: one of them is forged, and it can't be known which.
            return note.map(|note| {
                self.notes.remove(note);
                Reason::Fragment
            });
        }
        let next = note.map(|note| self.notes[note].next);
        (fragment.offset == 8 || next != Some(fragment.offset)).then_some(Reason::Fragment)
    }
}

/// How many options are looked at, padding counted; the contract says that there is a bound.
const MAX_OPTIONS: usize = 16;

fn option_faults(leave: Leave, ip: &Ip) -> Vec<Reason> {
    let mut faults = Vec::new();
    let Some(options) = &ip.options else {
        return faults;
    };
    if ip.protocol == 2 && options.alert {
        return faults;
    }
    let bounded = options.kinds.len() <= MAX_OPTIONS;
    if options.lies && bounded {
        faults.push(Reason::Malformed);
    }
    // Loose and strict source routes, and the stream identifier (RFC 6814).
    let routes = options
        .kinds
        .iter()
        .any(|kind| matches!(kind, 131 | 136 | 137));
    if routes || !leave.options || !bounded {
        faults.push(Reason::IpOptions);
    }
    faults
}

fn extension_fault(leave: Leave, ip: &Ip) -> Option<Reason> {
    let mut fragments = 0;
    let others = ip.extensions.iter().filter(|it| it.number != 44).count();
    let is_membership = ip.protocol == 58
        && others == 1
        && matches!(
            ip.upper,
            Upper::Icmp {
                kind: 130..=132 | 143,
                ..
            }
        );
    for (at, extension) in ip.extensions.iter().enumerate() {
        let allowed = match extension.number {
            // At most one, and what is before it only where options may pass.
            44 => {
                fragments += 1;
                fragments == 1
            }
            0 => at == 0 && (leave.options || is_membership && extension.alert),
            60 | 51 => leave.options,
            _ => false,
        };
        if !allowed || at >= dissect::MAX_EXTENSIONS {
            return Some(Reason::ExtensionHeader);
        }
    }
    None
}

/// Lengths and offsets that no packet is cut into.
fn fragment_form(fragment: Fragment) -> Option<Reason> {
    let malformed = !fragment.is_atomic()
        && (fragment.length == 0
            || fragment.more && !fragment.length.is_multiple_of(8)
            || fragment.offset + fragment.length > 65535);
    malformed.then_some(Reason::Malformed)
}

/// Flags that a stack sends. Which flags go together is not listed in any RFC; this is the list of
/// Linux's connection tracking.
fn sensible(flags: u8) -> bool {
    const URG: u8 = 32;
    const TOGETHER: [u8; 9] = [
        SYN,
        SYN | URG,
        SYN | ACK,
        RST,
        RST | ACK,
        FIN | ACK,
        FIN | ACK | URG,
        ACK,
        ACK | URG,
    ];
    TOGETHER.contains(&(flags & (FIN | SYN | RST | ACK | URG)))
}

/// Whether a message of neighbour discovery has its fixed part and whole options (RFC 4861, 4), and
/// fits into a packet of 1500 bytes. Nobody has a mapped address, so what is said from one is not
/// read.
fn discovery_fits(kind: u8, body: &[u8], is_mapped: bool) -> bool {
    let Some(fixed) = discovery_length(kind).filter(|_| !is_mapped) else {
        return true;
    };
    4 + body.len() <= 1460
        && body
            .get(fixed..)
            .is_some_and(|options| dissect::discovery_options(options).is_some())
}
