//! What must become of frames, one after the other: the oracle with eyes and a memory.
//!
//! Frames are read by [`dissect`], policy is worked out by [`Oracle`], and what passed before is a
//! plain list of flows and of fragments that are awaited. No time passes between frames.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use jiff::Timestamp;
use wardline_proto::v1::{Device, DropOrAllow, Policy, Port, Reason};

use crate::{
    dissect::{self, Arp, Content, Fragment, Frame, Ip, Mac, QuotedUpper, Upper},
    oracle::{
        Asks, Drop, End, Oracle, covers, is_group, is_link_local, is_martian, prefix_length,
        zone_on,
    },
};

/// Where a frame is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    Entering { interface: String },
    Leaving { interface: String, from: From },
}

/// Where a frame that leaves came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    Router,
    Uplink,
    /// A guarded port, where it was judged before.
    Guarded(String),
}

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Must {
    pub passed: bool,
    pub reason: Reason,
    /// For what observe passes, why it would be dropped.
    pub would: Reason,
    /// The rules that decided, any of which may be named.
    pub rules: BTreeSet<String>,
    /// All faults of form that it has.
    pub faults: Vec<Reason>,
}

impl Must {
    fn pass(reason: Reason) -> Self {
        Self {
            passed: true,
            reason,
            would: reason,
            rules: BTreeSet::new(),
            faults: Vec::new(),
        }
    }

    fn drop(drop: Drop) -> Self {
        Self {
            passed: false,
            reason: drop.reason,
            would: drop.reason,
            rules: drop.rules,
            faults: Vec::new(),
        }
    }

    fn observed(drop: Drop) -> Self {
        Self {
            would: drop.reason,
            rules: drop.rules,
            ..Self::pass(Reason::Observed)
        }
    }
}

/// The oracle with a memory.
pub struct Sequence<'a> {
    oracle: Oracle<'a>,
    now: Timestamp,
    /// Prefixes that may always reach the router, each with what for.
    failsafe: Vec<(String, String)>,
    flows: Vec<Flow>,
    notes: Vec<Note>,
    faults: Vec<Reason>,
}

/// A conversation that policy admitted.
#[derive(Clone, Debug)]
struct Flow {
    protocol: u8,
    opener: (IpAddr, u16),
    other: (IpAddr, u16),
    asks: Asks,
    /// The kind of query, for what is asked and answered by ICMP.
    query: Option<u8>,
    answered: bool,
    reset: bool,
    finished: [bool; 2],
    /// Where packets of the opener and of the other end come from, once they came.
    ways: [Option<Way>; 2],
    rules: BTreeSet<String>,
    /// Why it would not be there, if its zones enforced.
    observed: Option<Drop>,
}

/// The way that an end's packets come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Guarded {
        interface: String,
        vlan: u16,
        mac: Mac,
    },
    Router,
    Elsewhere,
}

impl Way {
    /// The guarded port that it enters, if it does.
    fn interface(&self) -> Option<&str> {
        match self {
            Self::Guarded { interface, .. } => Some(interface),
            Self::Router | Self::Elsewhere => None,
        }
    }

    fn of(at: &Where, frame: &Frame) -> Self {
        match at {
            Where::Entering { interface } => Self::Guarded {
                interface: interface.clone(),
                vlan: frame.vlan,
                mac: frame.source,
            },
            Where::Leaving {
                from: From::Router, ..
            } => Self::Router,
            Where::Leaving { .. } => Self::Elsewhere,
        }
    }
}

/// A fragment that is awaited.
#[derive(Clone, Debug)]
struct Note {
    whose: Whose,
    next: u32,
    /// What was said of the first one.
    must: Must,
}

/// What all fragments of a packet share.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whose {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    identification: u32,
    way: Way,
    leaves_through: Option<String>,
    vlan: u16,
}

/// What the network itself needs, and what passes without a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Solicitation { target: Ipv6Addr },
    Advertisement { target: Ipv6Addr },
    RouterSolicitation,
    RouterAdvertisement,
    Redirect,
    DhcpClient,
    DhcpServer,
    Membership,
}

/// What the zone and the way of a frame let pass by form.
#[derive(Clone, Copy, Default)]
struct Leave {
    options: bool,
    fragments: bool,
    /// Its form was judged where it entered, or is the router's own matter.
    trusted: bool,
}

impl<'a> Sequence<'a> {
    pub fn new(
        policy: &'a Policy,
        router: &[IpAddr],
        quarantined: &BTreeSet<String>,
        now: Timestamp,
    ) -> Self {
        let mut oracle = Oracle::new(policy, router);
        quarantined.iter().for_each(|name| oracle.quarantine(name));
        Self {
            oracle,
            now,
            failsafe: Vec::new(),
            flows: Vec::new(),
            notes: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Has some always reach the router: prefixes, and what they may ask for.
    pub fn spare(&mut self, failsafe: Vec<(String, String)>) {
        self.failsafe = failsafe;
    }

    /// What must become of a frame that is seen somewhere, with the tag that its interface took out
    /// of it.
    pub fn judge(&mut self, at: &Where, tag: Option<u16>, bytes: &[u8]) -> Must {
        self.faults.clear();
        let must = match self.try_judge(at, tag, bytes) {
            Ok(must) => must,
            Err(drop) if self.is_spared(&drop, at, tag, bytes) => Must::pass(Reason::Control),
            Err(drop) => Must::drop(drop),
        };
        Must {
            faults: self.faults.clone(),
            ..must
        }
    }

    fn try_judge(&mut self, at: &Where, tag: Option<u16>, bytes: &[u8]) -> Result<Must, Drop> {
        let interface = match at {
            Where::Entering { interface } | Where::Leaving { interface, .. } => interface,
        };
        let port = self.oracle.port_of(interface);
        let Ok(frame) = dissect::frame(bytes, tag) else {
            return Err(Drop::because(Reason::Malformed));
        };
        let zone = zone_on(port, frame.vlan);
        self.form(at, &frame, zone)?;
        let control = match &frame.content {
            Content::Ip(ip) => control(ip),
            Content::Arp(_) | Content::Other(_) => None,
        };
        let must = match at {
            Where::Entering { .. } => {
                let zone = zone.ok_or(Drop::because(Reason::WrongVlan))?;
                self.enter(at, port, interface, zone, &frame, control)
            }
            Where::Leaving { from, .. } => {
                let zone = zone.ok_or(Drop::because(Reason::WrongVlan))?;
                self.leave(at, from, zone, &frame, control)
            }
        }?;
        self.note(at, &frame, &must);
        Ok(must)
    }

    /// Whether what is dropped, but not by form, passes between the router and who may always reach
    /// it.
    fn is_spared(&self, drop: &Drop, at: &Where, tag: Option<u16>, bytes: &[u8]) -> bool {
        let by_form = [
            Reason::Malformed,
            Reason::UnknownEthertype,
            Reason::IpOptions,
            Reason::ExtensionHeader,
            Reason::Fragment,
            Reason::BadTcpFlags,
        ];
        let enters = match at {
            Where::Entering { .. } => true,
            Where::Leaving {
                from: From::Router, ..
            } => false,
            Where::Leaving { .. } => return false,
        };
        let Ok(frame) = dissect::frame(bytes, tag) else {
            return false;
        };
        if by_form.contains(&drop.reason) {
            return false;
        }
        let spares = |other: IpAddr, router: IpAddr, asks: Option<Asks>| {
            !is_martian(other)
                && !other.is_unspecified()
                && (!enters || self.oracle.is_the_routers(router))
                && self.failsafe.iter().any(|(prefix, service)| {
                    prefix_length(prefix, other).is_some()
                        && asks.is_none_or(|asks| covers(service, asks))
                })
        };
        let ip = match &frame.content {
            Content::Arp(Some(arp)) => {
                let (sender, target) = (arp.sender.into(), arp.target.into());
                let (other, router) = if enters {
                    (sender, target)
                } else {
                    (target, sender)
                };
                return arp.sender_mac == frame.source && spares(other, router, None);
            }
            Content::Arp(None) | Content::Other(_) => return false,
            Content::Ip(ip) => ip,
        };
        if ip.fragment.is_some_and(|fragment| !fragment.is_atomic()) {
            return false;
        }
        let (source, destination) = (ip.source, ip.destination);
        // Not even the router sends from there.
        if is_mapped(source) {
            return false;
        }
        let of_neighbours = ip.hop_limit == 255 && source.is_ipv6();
        match (control(ip), enters) {
            (Some(Control::Solicitation { target }), true) => {
                return of_neighbours && spares(source, target.into(), None);
            }
            (Some(Control::Advertisement { target }), true) => {
                return of_neighbours && source == target && spares(source, destination, None);
            }
            (Some(Control::Solicitation { target }), false) => {
                return of_neighbours && spares(target.into(), source, None);
            }
            (Some(Control::Advertisement { .. }), false) => {
                return of_neighbours && spares(destination, source, None);
            }
            (Some(Control::DhcpClient | Control::DhcpServer) | None, _) => {}
            _ => return false,
        }
        if Message::of(ip) == Message::Error {
            return false;
        }
        // What the router answers was asked of the port that it answers from.
        let asks = match (&ip.upper, asks(ip)) {
            (_, asks) if enters => asks,
            (Upper::Tcp { from, .. }, _) => Asks::Tcp(*from),
            (Upper::Udp { from, .. }, _) => Asks::Udp(*from),
            // With another code it answers nothing.
            (_, Asks::Icmp { kind: 0, code: 0 }) => Asks::Icmp { kind: 8, code: 0 },
            (_, Asks::Icmpv6 { kind: 129, code: 0 }) => Asks::Icmpv6 { kind: 128, code: 0 },
            (_, asks) => asks,
        };
        let (other, router) = if enters {
            (source, destination)
        } else {
            (destination, source)
        };
        spares(other, router, Some(asks))
    }

    // ── form ───────────────────────────────────────────────────────────────────────────────────

    fn form(&mut self, at: &Where, frame: &Frame, zone: Option<&str>) -> Result<(), Drop> {
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
            // The router's own matter, and named by the zone where it entered.
            Content::Other(_) if leave.trusted => vec![],
            Content::Other(0x888e) => vec![],
            Content::Other(number) => {
                let named = zone.is_some_and(|zone| zone.ethertypes.contains(&u32::from(*number)));
                if named {
                    vec![]
                } else {
                    vec![Reason::UnknownEthertype]
                }
            }
            Content::Ip(ip) => self.ip_faults(leave, frame, ip, at),
        };
        // The contract's order.
        let order = [
            Reason::Malformed,
            Reason::UnknownEthertype,
            Reason::IpOptions,
            Reason::ExtensionHeader,
            Reason::Fragment,
            Reason::BadTcpFlags,
        ];
        self.faults = faults;
        let mut order = order.into_iter();
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
            // Where fragments are dropped each is one, whatever it holds.
            Some(_) if !leave.fragments => faults.push(Reason::Fragment),
            // What the network itself needs fits into one packet (RFC 6980, 5).
            Some(fragment) if !fragment.is_atomic() => {
                faults.extend(fragment_form(fragment));
                if is_report(ip) || is_discovery(ip) || Message::of(ip) == Message::Error {
                    faults.push(Reason::Fragment);
                }
            }
            _ => {}
        }
        match &ip.upper {
            Upper::Broken => faults.push(Reason::Malformed),
            Upper::Cut => faults.push(Reason::Fragment),
            Upper::Tcp { flags, .. } if !sensible(*flags) => faults.push(Reason::BadTcpFlags),
            Upper::Icmp { kind, body, .. } if ip.protocol == 58 && !discovery_fits(*kind, body) => {
                faults.push(Reason::Malformed);
            }
            _ => {}
        }
        // Only what has no other fault is asked whether it begins or follows.
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
        let whose = whose(frame, ip, fragment, at);
        let note = self.notes.iter().position(|note| note.whose == whose);
        if fragment.offset == 0 {
            // Two that begin: one of them lies, and nobody knows which.
            return note.map(|note| {
                self.notes.remove(note);
                Reason::Fragment
            });
        }
        let next = note.map(|note| self.notes[note].next);
        (fragment.offset == 8 || next != Some(fragment.offset)).then_some(Reason::Fragment)
    }

    // ── place ──────────────────────────────────────────────────────────────────────────────────

    fn enter(
        &mut self,
        at: &Where,
        port: &Port,
        interface: &str,
        zone: &'a str,
        frame: &Frame,
        control: Option<Control>,
    ) -> Result<Must, Drop> {
        let device = self.oracle.stands(interface, zone, frame.source)?;
        let quarantined = device.is_some_and(|device| self.oracle.is_cut_off(device));
        let ip = match &frame.content {
            Content::Arp(Some(arp)) => {
                self.claims(frame, *arp, device, zone)?;
                return Ok(Must::pass(Reason::Control));
            }
            Content::Arp(None) => return Err(Drop::because(Reason::Malformed)),
            Content::Other(_) if quarantined => return Err(Drop::because(Reason::Quarantined)),
            Content::Other(_) => return Ok(Must::pass(Reason::Control)),
            Content::Ip(ip) => ip,
        };
        let control = control.filter(|control| !self.is_far(ip, *control));
        let goes_on =
            ip.fragment.is_none_or(|it| it.offset == 0) && self.goes_on(ip, &Way::of(at, frame));
        if !goes_on && !may_be_nobody(ip, control) && !self.oracle.may_send(device, zone, ip.source)
        {
            return Err(Drop::because(Reason::SpoofedSource));
        }
        self.take(device, ip.source);
        if let Some(control) = control {
            self.may_control(port, frame, ip, control, device, zone)?;
            // It is small: what comes in parts hides something.
            if ip.fragment.is_some_and(|fragment| fragment.more) {
                return Err(Drop::because(Reason::Fragment));
            }
        }
        if control.is_some_and(|control| control != Control::Membership || !quarantined) {
            return Ok(Must::pass(Reason::Control));
        }
        let source = End::Other {
            address: ip.source,
            device,
            zone: Some(zone),
        };
        self.admit(at, frame, ip, source)
    }

    /// An ARP packet may claim only what is its sender's.
    fn claims(
        &mut self,
        frame: &Frame,
        arp: Arp,
        device: Option<&'a Device>,
        zone: &str,
    ) -> Result<(), Drop> {
        // Who names no address claims none.
        let probes = arp.sender.is_unspecified();
        let own = probes || self.oracle.may_send(device, zone, arp.sender.into());
        if arp.sender_mac != frame.source || !own {
            return Err(Drop::because(Reason::ArpSpoof));
        }
        if !probes {
            self.take(device, arp.sender.into());
        }
        Ok(())
    }

    /// Whether discovery goes to a host that is no neighbour, or a DHCP client's message to one that is in
    /// no zone: then it is none.
    fn is_far(&self, ip: &Ip, control: Control) -> bool {
        let asks = matches!(
            control,
            Control::Solicitation { .. }
                | Control::Advertisement { .. }
                | Control::RouterSolicitation
                | Control::DhcpClient
        );
        let near = match self.oracle.end(ip.destination) {
            End::Router => true,
            // Of any zone: it may be on the same bridge.
            End::Other { zone, .. } => zone.is_some(),
        };
        asks && !is_group(ip.destination) && !is_link_local(ip.destination) && !near
    }

    fn may_control(
        &mut self,
        port: &Port,
        frame: &Frame,
        ip: &Ip,
        control: Control,
        device: Option<&'a Device>,
        zone: &str,
    ) -> Result<(), Drop> {
        let is_discovery = !matches!(
            control,
            Control::DhcpClient | Control::DhcpServer | Control::Membership
        );
        if ip.protocol == 58 && is_discovery {
            let is_coded = matches!(ip.upper, Upper::Icmp { code: 1.., .. });
            if ip.hop_limit != 255 || is_coded {
                return Err(Drop::because(Reason::NdSpoof));
            }
            let claimed = match control {
                Control::Solicitation { target } if ip.source.is_unspecified() => Some(target),
                Control::Advertisement { target } => Some(target),
                _ => None,
            };
            if let Some(target) = claimed {
                if !self.oracle.may_send(device, zone, target.into()) {
                    return Err(Drop::because(Reason::NdSpoof));
                }
                self.take(device, target.into());
            }
            if !links_are(ip, frame.source) {
                return Err(Drop::because(Reason::NdSpoof));
            }
        }
        match control {
            Control::RouterAdvertisement | Control::Redirect if !port.router => {
                Err(Drop::because(Reason::RogueRa))
            }
            Control::DhcpServer if !port.dhcp_server => Err(Drop::because(Reason::RogueDhcp)),
            Control::DhcpClient if !dhcp_is_own(ip, frame.source) => {
                Err(Drop::because(Reason::SpoofedSource))
            }
            _ => Ok(()),
        }
    }

    /// A device without listed addresses keeps what it has used.
    fn take(&mut self, device: Option<&'a Device>, address: IpAddr) {
        if let Some(device) = device
            && device.addresses.is_empty()
            && !address.is_unspecified()
            && !is_link_local(address)
        {
            self.oracle.learn(address, &device.name);
        }
    }

    fn leave(
        &mut self,
        at: &Where,
        from: &From,
        zone: &'a str,
        frame: &Frame,
        control: Option<Control>,
    ) -> Result<Must, Drop> {
        let ip = match &frame.content {
            Content::Ip(ip) => ip,
            Content::Arp(Some(arp)) if *from == From::Uplink => {
                self.claims_from_uplink(frame, *arp)?;
                return Ok(Must::pass(Reason::Control));
            }
            Content::Arp(_) | Content::Other(_) => return Ok(Must::pass(Reason::Control)),
        };
        if is_mapped(ip.source) {
            return Err(Drop::because(Reason::SpoofedSource));
        }
        if leaves_as_control(ip) {
            if *from == From::Uplink {
                self.controls_from_uplink(ip, control)?;
            }
            return Ok(Must::pass(Reason::Control));
        }
        if ip.upper == Upper::Hidden && matches!(from, From::Guarded(_)) {
            // What it is of is not known here: to a group it may go only within its zone.
            let is_near = match self.oracle.end(ip.source) {
                End::Router => false,
                End::Other { zone: own, .. } => own == Some(zone),
            };
            return if !is_to_group(frame, ip) || is_near {
                Ok(Must::pass(Reason::Established))
            } else {
                Err(Drop::because(Reason::Fragment))
            };
        }
        if is_to_group(frame, ip) {
            return self.leave_to_group(from, ip, zone);
        }
        // An end that sends through a guarded port was judged there. From elsewhere, somebody
        // borrows its address.
        if let Some(flow) = self.flows.iter().find(|flow| flow.side(ip).is_some()) {
            let sender = usize::from(flow.side(ip) == Some(false));
            if matches!(flow.ways[sender], Some(Way::Guarded { .. })) && may_follow(ip) {
                return match from {
                    From::Guarded(_) => Ok(Must::pass(Reason::Established)),
                    From::Router | From::Uplink => Err(Drop::because(Reason::SpoofedSource)),
                };
            }
        }
        let goes_on = self.goes_on(ip, &Way::of(at, frame));
        if !goes_on {
            self.may_send_out(from, ip)?;
        }
        self.admit(at, frame, ip, self.oracle.end(ip.source))
    }

    /// Whether it is the next packet of a flow, from where that end's packets come: then the end was
    /// judged before, also when a device has since taken its address.
    fn goes_on(&self, ip: &Ip, way: &Way) -> bool {
        let flow = self.flows.iter().find(|flow| flow.side(ip).is_some());
        flow.is_some_and(|flow| {
            let from_opener = flow.side(ip) == Some(true);
            let reopens = flow.is_closing() && Message::of(ip) == Message::Opens;
            flow.ways[usize::from(!from_opener)].as_ref() == Some(way)
                && !reopens
                && flow.clone().follow(ip, from_opener)
        })
    }

    fn may_send_out(&self, from: &From, ip: &Ip) -> Result<(), Drop> {
        let may_send = match from {
            From::Guarded(_) => !is_martian(ip.source),
            From::Router => self.oracle.may_be_sent_by_router(ip.source),
            From::Uplink => self.oracle.may_come_up(ip.source),
        };
        if may_send {
            Ok(())
        } else {
            Err(Drop::because(Reason::SpoofedSource))
        }
    }

    /// One frame to many: it is judged for each port that it leaves through, and opens nothing.
    fn leave_to_group(&self, from: &From, ip: &Ip, zone: &'a str) -> Result<Must, Drop> {
        self.may_send_out(from, ip)?;
        let source = self.oracle.end(ip.source);
        let to = self.oracle.end(ip.destination);
        let cut = self.oracle.is_cut(source, to);
        let many = End::Other {
            address: ip.destination,
            device: None,
            zone: Some(zone),
        };
        let is_near = match (from, source) {
            (From::Guarded(_), End::Other { zone: own, .. }) => own == Some(zone),
            _ => true,
        };
        let group = ip.destination;
        if self.is_related(ip, None) {
            return Ok(Must::pass(Reason::Related));
        }
        if is_link_local(ip.source) || is_link_local(ip.destination) {
            let drop = Drop::because(Reason::NoRule);
            // No port's zone is asked about who has no address of a zone.
            let other = if is_link_local(ip.source) { to } else { many };
            return if cut {
                Err(Drop::because(Reason::Quarantined))
            } else if self.oracle.is_observed(source, other) {
                Ok(Must::observed(drop))
            } else {
                Err(drop)
            };
        }
        let admitted = if Message::of(ip) == Message::Opens {
            let asks = asks(ip);
            self.oracle
                .admitted_to_group(self.now, source, group, zone, is_near, asks)
        } else {
            Err(Drop::because(Reason::MidFlow))
        };
        match admitted {
            Ok(rules) => Ok(Must {
                rules,
                ..Must::pass(Reason::Rule)
            }),
            Err(_) if cut => Err(Drop::because(Reason::Quarantined)),
            Err(drop) if self.oracle.is_observed(source, many) => Ok(Must::observed(drop)),
            Err(drop) => Err(drop),
        }
    }

    /// An uplink may claim for anybody but a guarded device and the router.
    fn claims_from_uplink(&self, frame: &Frame, arp: Arp) -> Result<(), Drop> {
        let own = arp.sender.is_unspecified() || self.oracle.may_come_up(arp.sender.into());
        if arp.sender_mac != frame.source || !own {
            return Err(Drop::because(Reason::ArpSpoof));
        }
        Ok(())
    }

    fn controls_from_uplink(&self, ip: &Ip, control: Option<Control>) -> Result<(), Drop> {
        let may_be = |address: IpAddr| !self.oracle.is_ours(address);
        if !may_be(ip.source) {
            return Err(Drop::because(Reason::SpoofedSource));
        }
        let claimed = match control {
            Some(Control::Redirect) => return Err(Drop::because(Reason::RogueRa)),
            Some(Control::RouterAdvertisement) if ip.source.is_ipv4() => {
                return Err(Drop::because(Reason::RogueRa));
            }
            Some(Control::Solicitation { target }) => {
                Some(target).filter(|_| ip.source.is_unspecified())
            }
            Some(Control::Advertisement { target }) => Some(target),
            Some(Control::RouterAdvertisement | Control::RouterSolicitation) => None,
            Some(Control::DhcpClient | Control::DhcpServer | Control::Membership) | None => {
                return Ok(());
            }
        };
        if ip.hop_limit != 255 || claimed.is_some_and(|target| !may_be(target.into())) {
            return Err(Drop::because(Reason::NdSpoof));
        }
        Ok(())
    }

    // ── state and policy ───────────────────────────────────────────────────────────────────────

    fn admit(&mut self, at: &Where, frame: &Frame, ip: &Ip, source: End<'a>) -> Result<Must, Drop> {
        let destination = self.oracle.end(ip.destination);
        if ip.upper == Upper::Hidden {
            return Ok(self.follower(at, frame, ip));
        }
        let cut = self.oracle.is_cut(source, destination);
        let observed = !cut && self.oracle.is_observed(source, destination);
        let must =
            match self.state_and_policy(ip, source, destination, observed, Way::of(at, frame)) {
                Err(_) if cut => return Err(Drop::because(Reason::Quarantined)),
                Err(drop) if observed => Must::observed(drop),
                done => done?,
            };
        Ok(must)
    }

    /// Notes the first of several fragments, when it passes.
    fn note(&mut self, at: &Where, frame: &Frame, must: &Must) {
        let Content::Ip(ip) = &frame.content else {
            return;
        };
        let fans = is_to_group(frame, ip);
        let (is_free, fans) = match at {
            Where::Entering { .. } => (false, false),
            Where::Leaving { from, .. } => {
                let is_control = leaves_as_control(ip);
                (matches!(from, From::Guarded(_)), fans && !is_control)
            }
        };
        let is_first = |it: &Fragment| it.more && it.offset == 0;
        let Some(fragment) = ip.fragment.filter(is_first).filter(|_| !is_free && !fans) else {
            return;
        };
        let whose = whose(frame, ip, fragment, at);
        self.notes.push(Note {
            whose,
            next: fragment.length,
            must: must.clone(),
        });
    }

    /// The next fragment of a packet whose first one passed; any other has failed by form.
    fn follower(&mut self, at: &Where, frame: &Frame, ip: &Ip) -> Must {
        let fragment = ip.fragment.expect("a later fragment");
        let whose = whose(frame, ip, fragment, at);
        let note = self.notes.iter().position(|note| note.whose == whose);
        let note = note.expect("a fragment that follows");
        let must = self.notes[note].must.clone();
        self.notes[note].next += fragment.length;
        if !fragment.more {
            self.notes.remove(note);
        }
        match must.reason {
            Reason::Observed | Reason::Control => must,
            _ => Must {
                reason: Reason::Established,
                would: Reason::Established,
                ..must
            },
        }
    }

    fn state_and_policy(
        &mut self,
        ip: &Ip,
        source: End<'a>,
        destination: End<'a>,
        observed: bool,
        way: Way,
    ) -> Result<Must, Drop> {
        let mid_flow = || Drop::because(Reason::MidFlow);
        // Between two devices in quarantine nothing passes, nor from one to itself.
        if self.oracle.is_quarantined(source) && self.oracle.is_quarantined(destination) {
            return Err(Drop::because(Reason::Quarantined));
        }
        // "Other link-local traffic is no_rule", whatever it is.
        if is_link_local(ip.source) || is_link_local(ip.destination) {
            return Err(Drop::because(Reason::NoRule));
        }
        // Reports to one host and discovery of who is no neighbour are of no service.
        if leaves_as_control(ip) && !matches!(ip.upper, Upper::Udp { .. }) {
            return Err(Drop::because(Reason::NoRule));
        }
        let message = Message::of(ip);
        if message == Message::Error {
            return match self.is_related(ip, way.interface()) {
                true => Ok(Must::pass(Reason::Related)),
                false => Err(mid_flow()),
            };
        }
        let found = self.flows.iter().position(|flow| flow.side(ip).is_some());
        if let Some(found) = found {
            let flow = &mut self.flows[found];
            let from_opener = flow.side(ip) == Some(true);
            let reopens = flow.is_closing() && message == Message::Opens;
            if !reopens {
                let sender = usize::from(!from_opener);
                let mut must = Must::pass(Reason::Established);
                let goes_on = flow.ways[sender].as_ref() == Some(&way)
                    && flow.clone().follow(ip, from_opener);
                if !goes_on {
                    // Who sends for the first time, from elsewhere or out of place is judged: by the
                    // rules for the opener.
                    let (opener, other) = if from_opener {
                        (source, destination)
                    } else {
                        (destination, source)
                    };
                    let ends = (flow.opener.0, flow.other.0);
                    let admitted = self
                        .oracle
                        .admitted(self.now, opener, other, flow.asks, ends);
                    match admitted {
                        Ok(rules) => (flow.rules, flow.observed) = (rules, None),
                        Err(drop) if observed => {
                            must = Must::observed(drop.clone());
                            flow.observed = Some(drop);
                        }
                        Err(drop) => {
                            self.flows.remove(found);
                            return Err(drop);
                        }
                    }
                }
                if !flow.follow(ip, from_opener) {
                    return Err(mid_flow());
                }
                flow.ways[sender] = Some(way);
                return Ok(match &flow.observed {
                    Some(_) if must.reason == Reason::Observed => must,
                    Some(drop) => Must::observed(drop.clone()),
                    None => Must {
                        rules: flow.rules.clone(),
                        ..must
                    },
                });
            }
        }
        if message != Message::Opens {
            return Err(mid_flow());
        }
        let admitted = self
            .oracle
            .admitted(self.now, source, destination, asks(ip), ends(ip));
        let (rules, observed, must) = match admitted {
            Ok(rules) => {
                let must = Must {
                    rules: rules.clone(),
                    ..Must::pass(Reason::Rule)
                };
                (rules, None, must)
            }
            Err(drop) if observed => (drop.rules.clone(), Some(drop.clone()), Must::observed(drop)),
            Err(drop) => return Err(drop),
        };
        if let Some(found) = found {
            self.flows.remove(found);
        }
        self.flows.push(Flow::opened(ip, way, rules, observed));
        Ok(must)
    }

    /// Whether an error quotes a packet of a flow, and goes to who sent that packet. Where it enters
    /// a port that no router is on, it must come from whom that packet was for.
    fn is_related(&self, ip: &Ip, entered: Option<&str>) -> bool {
        let Upper::Icmp { body, .. } = &ip.upper else {
            return false;
        };
        if Message::of(ip) != Message::Error {
            return false;
        }
        let version = if ip.source.is_ipv4() { 4 } else { 6 };
        let Some(quoted) = dissect::quoted(version, body) else {
            return false;
        };
        let on_the_path = entered.is_none_or(|interface| self.oracle.port_of(interface).router)
            || ip.source == quoted.destination
            || self.oracle.are_of_one(ip.source, quoted.destination);
        quoted.source == ip.destination
            && on_the_path
            && self.flows.iter().any(|flow| flow.is_quoted(&quoted))
    }
}

impl Flow {
    fn opened(ip: &Ip, way: Way, rules: BTreeSet<String>, observed: Option<Drop>) -> Self {
        let (from, to) = numbers(ip);
        Self {
            protocol: ip.protocol,
            opener: (ip.source, from),
            other: (ip.destination, to),
            asks: asks(ip),
            query: query(ip).map(|(kind, _)| kind),
            answered: false,
            reset: false,
            finished: [false; 2],
            ways: [Some(way), None],
            rules,
            observed,
        }
    }

    /// Whether the packet is of this flow: true when the opener sent it.
    fn side(&self, ip: &Ip) -> Option<bool> {
        if ip.protocol != self.protocol {
            return None;
        }
        let (from, to) = numbers(ip);
        let forth = (ip.source, from) == self.opener && (ip.destination, to) == self.other;
        let back = (ip.source, from) == self.other && (ip.destination, to) == self.opener;
        match (query(ip), self.query) {
            (None, None) if forth => Some(true),
            (None, None) if back => Some(false),
            (Some((kind, asks)), Some(own)) if kind == own => {
                (if asks { forth } else { back }).then_some(asks)
            }
            _ => None,
        }
    }

    fn is_quoted(&self, quoted: &dissect::Quoted) -> bool {
        let (source, destination) = (quoted.source, quoted.destination);
        let forth = source == self.opener.0 && destination == self.other.0;
        let back = source == self.other.0 && destination == self.opener.0;
        let ports = |from, to| {
            forth && (from, to) == (self.opener.1, self.other.1)
                || back && (from, to) == (self.other.1, self.opener.1)
        };
        self.protocol == quoted.protocol
            && match quoted.asks {
                QuotedUpper::Ports(from, to) => ports(from, to),
                QuotedUpper::Icmp {
                    kind,
                    code,
                    identifier,
                } => {
                    match (query_of(self.protocol, kind, code), self.query) {
                        (Some((kind, asks)), Some(own)) => {
                            kind == own
                                && (if asks { forth } else { back })
                                && ports(identifier, identifier)
                        }
                        // What is no query has no error of its own.
                        _ => false,
                    }
                }
                QuotedUpper::Other => ports(0, 0),
            }
    }

    /// Both ends have finished, or one has reset it.
    fn is_closing(&self) -> bool {
        self.reset || self.finished == [true; 2]
    }

    /// Whether the packet has a place in the flow, which goes on by it.
    fn follow(&mut self, ip: &Ip, from_opener: bool) -> bool {
        let Upper::Tcp { flags, .. } = ip.upper else {
            self.answered |= !from_opener;
            return true;
        };
        let has = |flag| flags & flag != 0;
        if has(SYN) {
            // The opener asks again, the other end answers again.
            self.answered |= has(ACK) && !from_opener;
            return has(ACK) != from_opener;
        }
        if has(RST) {
            self.reset = true;
            self.answered |= !from_opener;
            return true;
        }
        if !self.answered {
            // A challenge to a stale SYN (RFC 5961, 4.2); the opener has nothing to say yet.
            return !from_opener;
        }
        self.finished[usize::from(from_opener)] |= has(FIN);
        true
    }
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// What a packet can do where no flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Opens,
    Follows,
    Error,
}

impl Message {
    fn of(ip: &Ip) -> Self {
        match (&ip.upper, ip.protocol) {
            (Upper::Tcp { flags, .. }, _) => match flags & (SYN | ACK) {
                SYN => Self::Opens,
                _ => Self::Follows,
            },
            (
                Upper::Icmp {
                    kind: 3 | 4 | 11 | 12,
                    ..
                },
                1,
            ) => Self::Error,
            (Upper::Icmp { kind: 1..=4, .. }, 58) => Self::Error,
            (Upper::Icmp { kind, code, .. }, protocol) => match query_of(protocol, *kind, *code) {
                Some((_, false)) => Self::Follows,
                _ => Self::Opens,
            },
            _ => Self::Opens,
        }
    }
}

/// The kind of query that an ICMP message is of, and whether it asks.
fn query_of(protocol: u8, kind: u8, code: u8) -> Option<(u8, bool)> {
    // They have one code (RFC 792, RFC 4443, 4).
    match (protocol, kind) {
        _ if code != 0 => None,
        (1, 8 | 13 | 15 | 17) | (58, 128) => Some((kind, true)),
        (1, 0) => Some((8, false)),
        (1, 14 | 16 | 18) | (58, 129) => Some((kind - 1, false)),
        _ => None,
    }
}

fn query(ip: &Ip) -> Option<(u8, bool)> {
    match &ip.upper {
        Upper::Icmp { kind, code, .. } => query_of(ip.protocol, *kind, *code),
        _ => None,
    }
}

/// What tells flows between the same addresses apart: ports, or a query's identifier.
fn numbers(ip: &Ip) -> (u16, u16) {
    match &ip.upper {
        Upper::Tcp { from, to, .. } | Upper::Udp { from, to, .. } => (*from, *to),
        // What is no query is told apart by its type and code.
        Upper::Icmp { kind, code, .. } if query(ip).is_none() => {
            let what = u16::from_be_bytes([*kind, *code]);
            (what, what)
        }
        Upper::Icmp { body, .. } => {
            let identifier = u16::from_be_bytes([body[0], body[1]]);
            (identifier, identifier)
        }
        _ => (0, 0),
    }
}

/// Whether it is for several: by its MAC, for which it leaves through several ports, or by its
/// address.
fn is_to_group(frame: &Frame, ip: &Ip) -> bool {
    frame.destination[0] & 1 == 1 || is_group(ip.destination)
}

fn asks(ip: &Ip) -> Asks {
    match (&ip.upper, ip.protocol) {
        (Upper::Tcp { to, .. }, _) => Asks::Tcp(*to),
        (Upper::Udp { to, .. }, _) => Asks::Udp(*to),
        (Upper::Icmp { kind, code, .. }, 1) => Asks::Icmp {
            kind: *kind,
            code: *code,
        },
        (Upper::Icmp { kind, code, .. }, _) => Asks::Icmpv6 {
            kind: *kind,
            code: *code,
        },
        (_, protocol) => Asks::Protocol(protocol),
    }
}

fn ends(ip: &Ip) -> (IpAddr, IpAddr) {
    (ip.source, ip.destination)
}

fn whose(frame: &Frame, ip: &Ip, fragment: Fragment, at: &Where) -> Whose {
    Whose {
        source: ip.source,
        destination: ip.destination,
        protocol: ip.protocol,
        identification: fragment.identification,
        way: Way::of(at, frame),
        leaves_through: match at {
            Where::Entering { .. } => None,
            Where::Leaving { interface, .. } => Some(interface.clone()),
        },
        vlan: frame.vlan,
    }
}

// ── what has a form of its own ─────────────────────────────────────────────────────────────────

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
    let is_report = ip.protocol == 58
        && others == 1
        && matches!(
            ip.upper,
            Upper::Icmp {
                kind: 131 | 132 | 143,
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
            0 => at == 0 && (leave.options || is_report && extension.alert),
            60 | 51 => leave.options,
            _ => false,
        };
        if !allowed || at >= dissect::MAX_EXTENSIONS {
            return Some(Reason::ExtensionHeader);
        }
    }
    None
}

/// What no packet is cut into.
fn fragment_form(fragment: Fragment) -> Option<Reason> {
    let malformed = !fragment.is_atomic()
        && (fragment.length == 0
            || fragment.more && !fragment.length.is_multiple_of(8)
            || fragment.offset + fragment.length > 65535);
    malformed.then_some(Reason::Malformed)
}

/// What a stack sends. Which flags go together is not written in any RFC as a list; this is the one
/// of Linux's connection tracking.
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

/// Whether a message of neighbour discovery has its fixed part and whole options (RFC 4861, 4).
fn discovery_fits(kind: u8, body: &[u8]) -> bool {
    let Some(fixed) = discovery_length(kind) else {
        return true;
    };
    body.get(fixed..)
        .is_some_and(|options| dissect::discovery_options(options).is_some())
}

/// What is before the options, without the first four bytes of ICMP.
fn discovery_length(kind: u8) -> Option<usize> {
    match kind {
        133 => Some(4),
        134 => Some(12),
        135 | 136 => Some(20),
        137 => Some(36),
        _ => None,
    }
}

/// Whether it is a report of IGMP or MLD, or a leave.
fn is_report(ip: &Ip) -> bool {
    match (&ip.upper, ip.protocol) {
        (Upper::Icmp { kind, .. }, 58) => matches!(kind, 131 | 132 | 143),
        (Upper::Opaque(bytes), 2) if ip.source.is_ipv4() => {
            matches!(bytes.first(), Some(0x12 | 0x16 | 0x17 | 0x22))
        }
        _ => false,
    }
}

/// Whether it is neighbour discovery, or what IPv4 has of it.
fn is_discovery(ip: &Ip) -> bool {
    match (&ip.upper, ip.protocol) {
        (Upper::Icmp { kind, .. }, 58) => matches!(kind, 133..=137),
        (Upper::Icmp { kind, .. }, 1) => matches!(kind, 5 | 9),
        _ => false,
    }
}

fn control(ip: &Ip) -> Option<Control> {
    if is_report(ip) && is_group(ip.destination) {
        return Some(Control::Membership);
    }
    match (&ip.upper, ip.protocol) {
        (Upper::Icmp { kind: 5, .. }, 1) => Some(Control::Redirect),
        // RFC 1256.
        (Upper::Icmp { kind: 9, .. }, 1) => Some(Control::RouterAdvertisement),
        (Upper::Icmp { kind, body, .. }, 58) => {
            let target = || {
                let octets: [u8; 16] = body[4..20].try_into().expect("a whole target");
                Ipv6Addr::from(octets)
            };
            match kind {
                // Not looked into where it comes from the router.
                135 | 136 if body.len() < 20 => Some(Control::RouterSolicitation),
                133 => Some(Control::RouterSolicitation),
                134 => Some(Control::RouterAdvertisement),
                135 => Some(Control::Solicitation { target: target() }),
                136 => Some(Control::Advertisement { target: target() }),
                137 => Some(Control::Redirect),
                _ => None,
            }
        }
        // Only servers speak to the ports of clients, from whatever port.
        (Upper::Udp { to: 68, .. }, _) if ip.source.is_ipv4() => Some(Control::DhcpServer),
        (Upper::Udp { to: 546, .. }, _) if ip.source.is_ipv6() => Some(Control::DhcpServer),
        (Upper::Udp { from, to, data }, _) => match (from, to, data.as_slice()) {
            // A request of an Ethernet client, with its hardware address (RFC 2131, 2).
            (68, 67, [1, 1, 6, rest @ ..]) if ip.source.is_ipv4() && rest.len() >= 31 => {
                Some(Control::DhcpClient)
            }
            // What clients send (RFC 8415, 7.3).
            (546, 547, [1 | 3 | 4 | 5 | 6 | 8 | 9 | 11, _, _, _, ..]) if ip.source.is_ipv6() => {
                Some(Control::DhcpClient)
            }
            _ => None,
        },
        _ => None,
    }
}

/// What passes at egress without a rule: it was judged where it entered, is the router's, or comes
/// from an uplink, which is trusted for it.
fn leaves_as_control(ip: &Ip) -> bool {
    match (&ip.upper, ip.protocol) {
        (Upper::Udp { from, to, .. }, _) => [67..=68, 546..=547]
            .iter()
            .any(|ports| ports.contains(from) && ports.contains(to)),
        _ => is_report(ip) || is_discovery(ip),
    }
}

/// Whether it can be of a flow: errors are about one, reports and discovery of none.
fn may_follow(ip: &Ip) -> bool {
    Message::of(ip) != Message::Error && !is_report(ip)
}

/// IPv4 in IPv6's clothes (RFC 4291, 2.5.5.2).
fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(it) if it.to_ipv4_mapped().is_some())
}

/// Who has no address yet asks for one, and asks whether it is free.
fn may_be_nobody(ip: &Ip, control: Option<Control>) -> bool {
    ip.source.is_unspecified()
        && match control {
            Some(Control::DhcpClient) => ip.source.is_ipv4(),
            Some(Control::Solicitation { .. } | Control::RouterSolicitation) => true,
            Some(Control::Membership) => true,
            _ => false,
        }
}

/// Whether the link-layer addresses that discovery names are the sender's own.
fn links_are(ip: &Ip, mac: Mac) -> bool {
    let Upper::Icmp { kind, body, .. } = &ip.upper else {
        return true;
    };
    let Some(fixed) = discovery_length(*kind) else {
        return true;
    };
    // A redirect's target is another.
    let own = if *kind == 137 { 0 } else { 2 };
    let options = body.get(fixed..).and_then(dissect::discovery_options);
    options.is_some_and(|options| {
        options
            .iter()
            .filter(|(kind, _)| *kind == 1 || *kind == own)
            .all(|(_, link)| link[..6] == mac)
    })
}

/// Whether a DHCPv4 client asks for itself; DHCPv6 names nobody in a way that can be checked.
fn dhcp_is_own(ip: &Ip, mac: Mac) -> bool {
    match &ip.upper {
        Upper::Udp { data, .. } if ip.source.is_ipv4() => data.get(28..34) == Some(&mac),
        _ => true,
    }
}
