//! The expected verdicts on frames in sequence: the oracle with a frame reader and state.
//!
//! Frames are read by [`dissect`], policy is worked out by [`Oracle`], and what passed before is a
//! plain list of flows and of fragments that are awaited. No time passes between frames.

mod answers;
mod control;
mod flow;
mod form;
mod leases;
mod nat;
mod place;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use wardline_proto::v1::{Policy, Reason};

use self::{
    answers::{Asker, Question},
    control::{Control, control, is_report, leaves_as_control},
    flow::{Flow, Message, Way, asks},
    leases::Asked,
    nat::{Known, excuse},
};
use crate::{
    dissect::{self, Content, Fragment, Frame, Ip, Malformed, Upper},
    link::{linked, plain},
    oracle::{
        Asks, Drop, End, Oracle, Sender, covers, is_group, is_martian, prefix_length, zone_on,
    },
};

/// Where a frame is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    Entering { interface: String },
    Leaving { interface: String, from: From },
}

impl Where {
    fn interface(&self) -> &str {
        match self {
            Self::Entering { interface } | Self::Leaving { interface, .. } => interface,
        }
    }
}

/// Where a frame that leaves came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    Router,
    Uplink,
    /// A guarded port, where it was judged before.
    Guarded(String),
}

/// The expected verdict on a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Must {
    pub passed: bool,
    pub reason: Reason,
    /// For a pass by observe, why it would be dropped.
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

/// The oracle with state.
pub struct Sequence<'a> {
    oracle: Oracle<'a>,
    now: Timestamp,
    /// Prefixes that may always reach the router, each with a service.
    failsafe: Vec<(String, String)>,
    flows: Vec<Flow>,
    notes: Vec<Note>,
    faults: Vec<Reason>,
    /// Whether the frame leaves, and a container or a virtual machine above the port has sent it.
    is_hosted: bool,
    /// Whether the port where the frame is seen is in quarantine.
    is_cut: bool,
    /// How much control a sender may send, and how much one in quarantine; none: without a bound.
    budget: Option<[u32; 2]>,
    /// How much each has sent; above a bridge, through each of its ports.
    spent: BTreeMap<(Sender, Option<String>), u32>,
    /// The identifiers that senders have used.
    clients: BTreeMap<Sender, BTreeSet<Vec<u8>>>,
    /// What each has asked a DHCP server for last.
    asked: BTreeMap<Sender, Asked>,
    /// Whether the router has NAT of IPv4, and of IPv6.
    nat: [bool; 2],
    /// The ends of packets that have opened flows where they entered.
    admitted: Vec<Known>,
    /// The address that the packet at hand claims, and that its sender has yet to learn.
    claim: Option<IpAddr>,
    questions: BTreeMap<Asker, Vec<Question>>,
}

/// A fragment that is awaited.
#[derive(Clone, Debug)]
struct Note {
    whose: Whose,
    next: u32,
    /// The verdict on the first one.
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
            is_hosted: false,
            is_cut: false,
            budget: None,
            spent: BTreeMap::new(),
            claim: None,
            questions: BTreeMap::new(),
            clients: BTreeMap::new(),
            asked: BTreeMap::new(),
            nat: [false; 2],
            admitted: Vec::new(),
        }
    }

    /// Bounds the control of each sender, and of each in quarantine.
    pub fn bound(&mut self, control: u32, in_quarantine: u32) {
        self.budget = Some([control, in_quarantine]);
    }

    /// Gives the router's interfaces a MAC.
    pub fn own(&mut self, mac: [u8; 6]) {
        self.oracle.own(mac);
    }

    /// Puts a port in quarantine.
    pub fn cut_port(&mut self, interface: &str) {
        self.oracle.cut_port(interface);
    }

    /// Says that the router reaches a network directly through an interface.
    pub fn connect(&mut self, interface: &str, network: &str) {
        self.oracle.connect(interface, network);
    }

    /// Joins interfaces to one link.
    pub fn join(&mut self, interfaces: &[&str]) {
        self.oracle.join(interfaces);
    }

    /// Says that no bridge or the like passes on frames through an interface.
    pub fn set_apart(&mut self, interface: &str) {
        self.oracle.set_apart(interface);
    }

    /// Sets the failsafe: prefixes that always reach the router, each with a service.
    pub fn spare(&mut self, failsafe: Vec<(String, String)>) {
        self.failsafe = failsafe;
    }

    /// The verdict on a frame at a place, with the tag that its interface took out of it.
    pub fn judge(&mut self, at: &Where, tag: Option<u16>, bytes: &[u8]) -> Must {
        self.faults.clear();
        self.is_hosted = self.sends_hosted(at, bytes);
        // Whoever has a MAC of its own above a port is on its link, like those behind it.
        let entering = Where::Entering {
            interface: at.interface().to_owned(),
        };
        let at = if self.is_hosted { &entering } else { at };
        let must = match self.try_judge(at, tag, bytes) {
            Ok(must) => must,
            Err(drop) if self.is_spared(&drop, at, tag, bytes) => Must::pass(Reason::Control),
            Err(drop) if self.is_observed(&drop, at, tag, bytes) => Must::observed(drop),
            Err(drop) => Must::drop(drop),
        };
        Must {
            faults: self.faults.clone(),
            ..must
        }
    }

    /// Whether a frame that leaves is neither the router's nor passed on: then a container or a
    /// virtual machine above the port has sent it.
    fn sends_hosted(&self, at: &Where, bytes: &[u8]) -> bool {
        let local = match at {
            Where::Leaving { from, interface } => {
                *from == From::Router || self.oracle.is_apart(interface)
            }
            Where::Entering { .. } => false,
        };
        let source = bytes.get(6..12).and_then(|mac| mac.try_into().ok());
        local && source.is_some_and(|mac| !self.oracle.is_own_mac(mac))
    }

    fn try_judge(&mut self, at: &Where, tag: Option<u16>, bytes: &[u8]) -> Result<Must, Drop> {
        let interface = at.interface();
        let port = self.oracle.port_of(interface);
        self.is_cut = self.oracle.is_cut_port(interface);
        self.oracle.only_kept(self.is_cut);
        let Ok(frame) = self.dissected(at, tag, bytes) else {
            return Err(Drop::because(Reason::Malformed));
        };
        let zone = zone_on(port, frame.vlan);
        self.form(at, &frame, zone)?;
        if self.is_cut && is_later_part(&frame) {
            return Err(Drop::because(Reason::Quarantined));
        }
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

    /// A frame, its link-local addresses with the link where it is judged.
    fn dissected(&self, at: &Where, tag: Option<u16>, bytes: &[u8]) -> Result<Frame, Malformed> {
        let mut frame = dissect::frame(bytes, tag)?;
        if let Content::Ip(ip) = &mut frame.content {
            ip.link = self.oracle.link_of(at.interface());
            ip.source = linked(ip.source, ip.link);
            ip.destination = linked(ip.destination, ip.link);
        }
        Ok(frame)
    }

    /// Whether the failsafe passes a packet that is dropped, but not by form.
    fn is_spared(&self, drop: &Drop, at: &Where, tag: Option<u16>, bytes: &[u8]) -> bool {
        let enters = match at {
            Where::Entering { .. } => true,
            Where::Leaving {
                from: From::Router, ..
            } => false,
            Where::Leaving { .. } => return false,
        };
        let Ok(frame) = self.dissected(at, tag, bytes) else {
            return false;
        };
        if form::ORDER.contains(&drop.reason) {
            return false;
        }
        let spares = |other: IpAddr, router: IpAddr, asks: Option<Asks>| {
            !is_martian(other)
                && !other.is_unspecified()
                && (!enters || self.oracle.is_the_routers(router))
                && self.failsafe.iter().any(|(prefix, service)| {
                    prefix_length(prefix, plain(other)).is_some()
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
        // Not even the router sends from a mapped address.
        if is_mapped(source) {
            return false;
        }
        let of_neighbours = ip.hop_limit == 255 && source.is_ipv6();
        match (control(ip), enters) {
            (Some(Control::Solicitation { target }), true) => {
                return of_neighbours && spares(source, linked(target.into(), ip.link), None);
            }
            (Some(Control::Advertisement { target }), true) => {
                return of_neighbours
                    && source == linked(target.into(), ip.link)
                    && spares(source, destination, None);
            }
            (Some(Control::Solicitation { target }), false) => {
                return of_neighbours && spares(linked(target.into(), ip.link), source, None);
            }
            (Some(Control::Advertisement { .. }), false) => {
                return of_neighbours && spares(destination, source, None);
            }
            (Some(Control::DhcpClient | Control::DhcpServer | Control::DhcpRelay) | None, _) => {}
            _ => return false,
        }
        if Message::of(ip) == Message::Error {
            return false;
        }
        // The router's answer comes from the port that the request asked for.
        let asks = match (&ip.upper, asks(ip)) {
            (_, asks) if enters => asks,
            (Upper::Tcp { from, .. }, _) => Asks::Tcp(*from),
            (Upper::Udp { from, .. }, _) => Asks::Udp(*from),
            // An echo reply with another code answers nothing.
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

    // ── state and policy ───────────────────────────────────────────────────────────────────────

    fn admit(&mut self, at: &Where, frame: &Frame, ip: &Ip, source: End<'a>) -> Result<Must, Drop> {
        let destination = self.oracle.end(ip.destination);
        if ip.upper == Upper::Hidden {
            return Ok(self.follower(at, frame, ip));
        }
        let cut = self.is_cut || self.oracle.is_cut(source, destination);
        let [sends, receives] = [source, destination].map(|end| self.oracle.is_quarantined(end));
        let enters = matches!(at, Where::Entering { .. });
        // What is at a port in quarantine is in quarantine, and two such never reach each other.
        if self.is_cut && if enters { receives } else { sends } {
            return Err(Drop::because(Reason::Quarantined));
        }
        let observed = !self.is_cut
            && self.oracle.observes(at.interface(), frame.vlan)
            && [source, destination]
                .into_iter()
                .all(|end| self.oracle.spares(end));
        let way = self.way(at, frame, ip, cut);
        let smuggled = !cut && self.is_smuggled(at, frame, ip);
        let ends = (source, destination);
        match self.state_and_policy(frame, ip, ends, observed, way, smuggled) {
            Err(_) if cut => Err(Drop::because(Reason::Quarantined)),
            done => done,
        }
    }

    /// Whether a frame passes, although it would be dropped, because all that it touches observes.
    fn is_observed(&self, drop: &Drop, at: &Where, tag: Option<u16>, bytes: &[u8]) -> bool {
        const POLICY: [Reason; 6] = [
            Reason::NoRule,
            Reason::DeniedByRule,
            Reason::Expired,
            Reason::MidFlow,
            Reason::FlowTableFull,
            Reason::DeviceQuota,
        ];
        if drop.reason == Reason::Quarantined || self.oracle.is_cut_port(at.interface()) {
            return false;
        }
        let vlan = dissect::vlan(bytes, tag);
        // No zone is known where the VLAN can't be read.
        let here = match vlan {
            Some(vlan) => self.oracle.observes(at.interface(), vlan),
            None => self.oracle.observes_wholly(at.interface()),
        };
        let macs = bytes.first_chunk::<12>().map(|macs| {
            let mac = |at: usize| [0, 1, 2, 3, 4, 5].map(|byte| macs[at + byte]);
            [mac(0), mac(6)]
        });
        // A bridge sends what is for a group, or for a MAC that nobody knows, out of all its ports.
        let fans = macs.is_none_or(|[to, _]| !self.oracle.knows_mac(to));
        let stays = self.is_hosted || matches!(at, Where::Leaving { .. });
        let spares_near = stays || !fans || self.oracle.neighbours_observe(at.interface());
        let mut macs = macs.into_iter().flatten();
        let spares_macs = POLICY.contains(&drop.reason)
            || spares_near && macs.all(|mac| self.oracle.spares_mac(mac));
        // The addresses of what is malformed can't be believed, if they can be read at all.
        let addresses = match self.dissected(at, tag, bytes).map(|frame| frame.content) {
            Ok(Content::Ip(ip)) if drop.reason != Reason::Malformed => {
                vec![ip.source, ip.destination]
            }
            Ok(Content::Arp(Some(arp))) => vec![arp.sender.into(), arp.target.into()],
            _ => vec![],
        };
        here && spares_macs
            && addresses
                .into_iter()
                .all(|address| self.oracle.spares_address(address))
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
        frame: &Frame,
        ip: &Ip,
        (source, destination): (End<'a>, End<'a>),
        observed: bool,
        way: Way,
        smuggled: bool,
    ) -> Result<Must, Drop> {
        let mid_flow = || Drop::because(Reason::MidFlow);
        // Between two devices in quarantine nothing passes, nor from one to itself.
        if self.oracle.is_quarantined(source) && self.oracle.is_quarantined(destination) {
            return Err(Drop::because(Reason::Quarantined));
        }
        // Reports to one host, and discovery of hosts that are no neighbours, belong to no service.
        if leaves_as_control(ip) && !matches!(ip.upper, Upper::Udp { .. }) {
            return Err(Drop::because(Reason::NoRule));
        }
        let message = Message::of(ip);
        if message == Message::Error {
            if self.is_cut {
                return Err(mid_flow());
            }
            return match self.is_related(ip, way.interface()) {
                true => Ok(Must::pass(Reason::Related)),
                false => Err(mid_flow()),
            };
        }
        let cut = self.is_cut || self.oracle.is_cut(source, destination);
        let found = self.flows.iter().position(|flow| flow.side(ip).is_some());
        if let Some(found) = found {
            let known = self.flows[found].clone();
            let from_opener = known.side(ip) == Some(true);
            // What policy says of the flow now.
            let (opener, other) = if from_opener {
                (source, destination)
            } else {
                (destination, source)
            };
            let ends = (known.opener.0, known.other.0);
            let admitted = self
                .oracle
                .admitted(self.now, opener, other, known.asks, ends);
            let mut admitted = if is_answer(frame, ip) {
                self.answered(admitted, (opener, other), known.other)
            } else {
                admitted
            };
            let flow = &mut self.flows[found];
            let reopens = flow.is_closing() && message == Message::Opens;
            if !reopens {
                let sender = usize::from(!from_opener);
                let mut must = Must::pass(Reason::Established);
                let goes_on = !self.is_cut
                    && flow.ways[sender].as_ref() == Some(&way)
                    && flow.clone().follow(ip, from_opener);
                if !goes_on {
                    // An end that sends for the first time, from another place, or out of the
                    // flow's state is judged by the rules for the opener.
                    let answers = !from_opener && way.interface().is_some() && !cut;
                    if way == Way::Rewritten || answers && flow.ways[0] == Some(Way::Rewritten) {
                        admitted = excuse(admitted, opener);
                    }
                    // A packet that does not fit the flow's state changes nothing about the flow,
                    // unless policy ends it.
                    let fits = flow.clone().follow(ip, from_opener);
                    match admitted {
                        Ok(_) if !fits => return Err(mid_flow()),
                        Err(_) if observed && !fits => return Err(mid_flow()),
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
                let must = match &flow.observed {
                    Some(_) if must.reason == Reason::Observed => must,
                    Some(drop) => Must::observed(drop.clone()),
                    None => Must {
                        rules: flow.rules.clone(),
                        ..must
                    },
                };
                if !goes_on && must.reason == Reason::Established {
                    self.ask(frame, ip, source, &must.rules);
                }
                return Ok(must);
            }
        }
        if message != Message::Opens {
            return Err(mid_flow());
        }
        let mut admitted = self
            .oracle
            .admitted(self.now, source, destination, asks(ip), ends(ip));
        if let Upper::Udp { to, .. } = ip.upper
            && is_answer(frame, ip)
        {
            admitted = self.answered(admitted, (source, destination), (ip.destination, to));
        }
        if way == Way::Rewritten {
            admitted = excuse(admitted, source);
        }
        if smuggled {
            admitted = Err(Drop::because(Reason::NoRule));
        }
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
        if must.reason == Reason::Rule {
            self.ask(frame, ip, source, &rules);
        }
        self.flows.push(Flow::opened(ip, way, rules, observed));
        Ok(must)
    }

    /// Whether an error quotes a packet of a flow, and goes to the sender of that packet. Where it
    /// enters a port without a router, it must come from the destination of that packet.
    fn is_related(&self, ip: &Ip, entered: Option<&str>) -> bool {
        let Upper::Icmp { body, .. } = &ip.upper else {
            return false;
        };
        if Message::of(ip) != Message::Error {
            return false;
        }
        let version = if ip.source.is_ipv4() { 4 } else { 6 };
        let Some(mut quoted) = dissect::quoted(version, body) else {
            return false;
        };
        quoted.source = linked(quoted.source, ip.link);
        quoted.destination = linked(quoted.destination, ip.link);
        let on_the_path = entered.is_none_or(|interface| self.oracle.port_of(interface).router)
            || ip.source == quoted.destination
            || self.oracle.are_of_one(ip.source, quoted.destination);
        quoted.source == ip.destination
            && on_the_path
            && self.flows.iter().any(|flow| flow.is_quoted(&quoted))
    }
}

/// Whether a packet may answer what was asked of a group.
fn is_answer(frame: &Frame, ip: &Ip) -> bool {
    matches!(ip.upper, Upper::Udp { .. }) && !is_to_group(frame, ip)
}

/// Whether a frame is for a group: by its MAC, as it then leaves through several ports, or by its
/// address.
fn is_to_group(frame: &Frame, ip: &Ip) -> bool {
    frame.destination[0] & 1 == 1 || is_group(ip.destination)
}

/// Whether a frame holds a part of a packet after the first.
fn is_later_part(frame: &Frame) -> bool {
    matches!(&frame.content, Content::Ip(ip) if ip.upper == Upper::Hidden)
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

/// Whether a packet can belong to a flow: errors are about one, reports belong to none.
fn may_follow(ip: &Ip) -> bool {
    Message::of(ip) != Message::Error && !is_report(ip)
}

/// An IPv4-mapped address (RFC 4291, 2.5.5.2).
fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(it) if it.to_ipv4_mapped().is_some())
}
