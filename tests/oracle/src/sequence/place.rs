//! Whether a frame may be where it is seen, from this sender: place, sources and control.

use std::net::{IpAddr, Ipv6Addr};

use wardline_proto::v1::{Device, Port, Reason};

use super::{
    From, Must, Sequence, Where,
    control::{
        Control, dhcp_address, dhcp_is_own, is_discovery, is_query, is_report, leaves_as_control,
        links_are, may_be_nobody, stays_on_link,
    },
    flow::{Message, Way, asks},
    is_answer, is_mapped, is_to_group,
    leases::{Answer, IDENTIFIERS, Says, answer, asked, told},
    may_follow,
};
use crate::{
    dissect::{Arp, Content, Frame, Ip, Upper},
    link::{is_link_local, is_odd, linked},
    oracle::{Drop, End, Sender, is_group, is_martian, learns},
};

impl<'a> Sequence<'a> {
    /// A frame that enters through a guarded port.
    pub(super) fn enter(
        &mut self,
        at: &Where,
        port: &Port,
        interface: &str,
        zone: &'a str,
        frame: &Frame,
        control: Option<Control>,
    ) -> Result<Must, Drop> {
        // Above a bridge it is behind none of the ports, and belongs where one of them does.
        let is_above = self.is_hosted && !self.oracle.is_apart(interface);
        let above = self.oracle.zone_above(interface, frame.source);
        let above = above.filter(|_| is_above);
        let (towards, zone) = (zone, above.unwrap_or(zone));
        let device = self
            .oracle
            .stands(interface, zone, frame.source, is_above)?;
        if self.is_cut && device.is_none() {
            return Err(Drop::because(Reason::Quarantined));
        }
        let quarantined =
            self.is_cut || device.is_some_and(|device| self.oracle.is_cut_off(device));
        self.claim = None;
        let ip = match &frame.content {
            Content::Arp(Some(arp)) => {
                self.claims(frame, *arp, device, zone)?;
                self.settle(frame, device, zone, Reason::ArpSpoof)?;
                return self.charge(frame, device, is_above.then_some(interface));
            }
            Content::Arp(None) => return Err(Drop::because(Reason::Malformed)),
            Content::Other(_) if quarantined => return Err(Drop::because(Reason::Quarantined)),
            Content::Other(number) if above.is_some() && !self.oracle.lets_pass(zone, *number) => {
                return Err(Drop::because(Reason::UnknownEthertype));
            }
            Content::Other(_) => {
                return self.charge(frame, device, is_above.then_some(interface));
            }
            Content::Ip(ip) => ip,
        };
        let control = control
            .filter(|control| !self.is_far(frame, ip, *control))
            .filter(|control| self.is_control_here(port, frame, ip, *control));
        let goes_on =
            ip.fragment.is_none_or(|it| it.offset == 0) && self.goes_on(ip, &Way::of(at, frame));
        let may_send = self.oracle.may_send(device, zone, ip.source);
        if !goes_on && !may_be_nobody(ip, control) && !may_send {
            return Err(Drop::because(Reason::SpoofedSource));
        }
        if !goes_on {
            self.take(frame, device, ip.source);
            let sender = Sender::new(device, frame.source);
            self.oracle.see(ip.source, &sender, zone);
        }
        if let Some(control) = control {
            self.may_control(port, frame, ip, control, device, zone)?;
            // Control messages are small, so one in fragments hides something.
            if ip.fragment.is_some_and(|fragment| fragment.more) {
                return Err(Drop::because(Reason::Fragment));
            }
        }
        let to_one = control.is_none() && !is_to_group(frame, ip);
        if (self.is_hosted || self.oracle.is_apart(interface))
            && to_one
            && ip.upper != Upper::Hidden
            && self.is_misdirected(at, frame, ip)
        {
            return Err(Drop::because(Reason::Misdirected));
        }
        let membership = matches!(
            control,
            Some(Control::Membership | Control::MembershipQuery)
        );
        if !(membership && quarantined) {
            let claims_source = self.claim == Some(ip.source);
            let refused = match control {
                Some(_) if claims_source => Reason::SpoofedSource,
                Some(Control::DhcpClient) => Reason::RogueDhcp,
                Some(_) => Reason::NdSpoof,
                None => Reason::SpoofedSource,
            };
            self.settle(frame, device, zone, refused)?;
        }
        if control.is_some() && !(membership && quarantined) {
            let mut gives_back = Vec::new();
            if control == Some(Control::DhcpClient) {
                gives_back = self.asks_for_itself(at, frame, ip, device, zone)?;
            }
            let must = self.charge(frame, device, is_above.then_some(interface))?;
            let sender = Sender::new(device, frame.source);
            for address in gives_back {
                self.oracle.give_back(address, &sender);
            }
            return Ok(must);
        }
        if above.is_some() && is_to_group(frame, ip) {
            let from = From::Guarded(interface.to_owned());
            return self.leave_to_group(&from, frame, ip, towards);
        }
        let source = End::Other {
            address: ip.source,
            device,
            zone: Some(zone),
        };
        let must = self.admit(at, frame, ip, source)?;
        if matches!(must.reason, Reason::Rule | Reason::Established) {
            self.remember(ip);
        }
        Ok(must)
    }

    /// Counts a packet of control, which passes while its sender has sent few enough of them. `copy`
    /// is where a copy leaves of what is sent above a bridge: each has a budget of its own.
    fn charge(
        &mut self,
        frame: &Frame,
        device: Option<&Device>,
        copy: Option<&str>,
    ) -> Result<Must, Drop> {
        let quarantined =
            self.is_cut || device.is_some_and(|device| self.oracle.is_cut_off(device));
        let sender = Sender::new(device, frame.source);
        let spent = self
            .spent
            .entry((sender, copy.map(str::to_owned)))
            .or_default();
        let budget = self.budget.map(|budget| budget[usize::from(quarantined)]);
        if budget.is_none_or(|budget| *spent < budget) {
            *spent += 1;
            return Ok(Must::pass(Reason::Control));
        }
        Err(Drop::because(Reason::DeviceQuota))
    }

    /// A DHCP client gives back only its own addresses, or ones that it could have been offered,
    /// and uses few identifiers.
    fn asks_for_itself(
        &mut self,
        at: &Where,
        frame: &Frame,
        ip: &Ip,
        device: Option<&Device>,
        zone: &str,
    ) -> Result<Vec<IpAddr>, Drop> {
        let rogue = Drop::because(Reason::RogueDhcp);
        let told = told(ip, frame.source).ok_or(rogue.clone())?;
        let sender = Sender::new(device, frame.source);
        let is_own = |address: &IpAddr| match self.oracle.end(*address) {
            End::Router => false,
            End::Other {
                device: Some(owner),
                ..
            } => device.is_some_and(|device| device.name == owner.name),
            End::Other { .. } => {
                self.oracle.is_in(zone, *address)
                    && device.is_none_or(|device| learns(device, *address))
                    && self.oracle.is_free_for(&sender, *address)
            }
        };
        if !told.gives_back.iter().all(is_own) {
            return Err(rogue);
        }
        let known = self.clients.entry(sender.clone()).or_default();
        if let Some(identifier) = told.identifier {
            if known.len() == IDENTIFIERS && !known.contains(&identifier) {
                return Err(rogue);
            }
            known.insert(identifier);
            if let Some(asked) = asked(ip, at.interface()) {
                self.asked.insert(sender, asked);
            }
        }
        Ok(told.gives_back)
    }

    /// A DHCP server's answer passes on its way to a client: what it gives is the client's from now on,
    /// if that has asked for it at the same port.
    fn take_lease(&mut self, at: &Where, frame: &Frame, ip: &Ip, zone: &str) {
        let Some(Answer {
            client,
            transaction,
            says,
        }) = answer(ip, frame.destination)
        else {
            return;
        };
        let device = self.oracle.with_mac(client);
        let is_here = device.map_or_else(
            || self.oracle.admits_any(zone),
            |device| device.zone == zone,
        );
        let sender = Sender::new(device, client);
        let Some(asked) = self.asked.get(&sender) else {
            return;
        };
        let asked_here = asked.transaction == transaction && asked.interface == at.interface();
        if self.oracle.is_own_mac(client) || !is_here || !asked_here {
            return;
        }
        let has = match says {
            Says::Has(has) => has,
            Says::Refuses => asked.wanted.map(|it| (it, false)).into_iter().collect(),
        };
        for (address, valid) in has {
            if valid {
                self.oracle.lease(device, &sender, address, zone);
            } else {
                self.oracle.give_back(address, &sender);
            }
        }
    }

    /// An ARP packet may claim only what is its sender's.
    fn claims(
        &mut self,
        frame: &Frame,
        arp: Arp,
        device: Option<&'a Device>,
        zone: &str,
    ) -> Result<(), Drop> {
        // An ARP probe names no sender address, so it claims none.
        let probes = arp.sender.is_unspecified();
        let own = probes || self.oracle.may_send(device, zone, arp.sender.into());
        if arp.sender_mac != frame.source || !own {
            return Err(Drop::because(Reason::ArpSpoof));
        }
        if !probes {
            self.take(frame, device, arp.sender.into());
        }
        Ok(())
    }

    /// Whether discovery goes to a host that is no neighbour, or a DHCP client's message to one
    /// that is in no zone: then it is not control.
    fn is_far(&self, frame: &Frame, ip: &Ip, control: Control) -> bool {
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
            End::Other { zone, .. } => zone.is_some() || self.oracle.is_in_a_zone(ip.destination),
        };
        // A frame for the router's MAC and another's address is one to forward.
        let forwards = control != Control::DhcpClient
            && self.oracle.is_own_mac(frame.destination)
            && !self.oracle.is_the_routers(ip.destination);
        asks && !is_group(ip.destination) && !is_link_local(ip.destination) && (!near || forwards)
    }

    /// Whether messages that are control in one place only are in that place.
    fn is_control_here(&self, port: &Port, frame: &Frame, ip: &Ip, control: Control) -> bool {
        match control {
            Control::Membership => stays_on_link(frame, ip),
            // On any other port a query is a fault, whatever its destination.
            Control::MembershipQuery => !port.router || stays_on_link(frame, ip),
            Control::DhcpRelay => {
                port.dhcp_server
                    && !ip.source.is_unspecified()
                    && self.oracle.is_the_routers(ip.destination)
            }
            _ => true,
        }
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
            Control::DhcpClient
                | Control::DhcpServer
                | Control::DhcpRelay
                | Control::Membership
                | Control::MembershipQuery
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
                let odd = is_odd(target.into());
                let target = linked(target.into(), ip.link);
                let own = !odd && self.oracle.may_send(device, zone, target);
                if !own || !self.take(frame, device, target) {
                    return Err(Drop::because(Reason::NdSpoof));
                }
                let sender = Sender::new(device, frame.source);
                self.oracle.see(target, &sender, zone);
            }
            if !links_are(ip, frame.source) {
                return Err(Drop::because(Reason::NdSpoof));
            }
        }
        match control {
            Control::RouterAdvertisement | Control::Redirect | Control::MembershipQuery
                if !port.router =>
            {
                Err(Drop::because(Reason::RogueRa))
            }
            Control::DhcpServer if !port.dhcp_server => Err(Drop::because(Reason::RogueDhcp)),
            Control::DhcpClient if !dhcp_is_own(ip, frame.source) => {
                Err(Drop::because(Reason::RogueDhcp))
            }
            Control::DhcpClient => {
                if let Some(address) = dhcp_address(ip) {
                    let own = self.oracle.may_send(device, zone, address.into());
                    if !own || !self.take(frame, device, address.into()) {
                        return Err(Drop::because(Reason::RogueDhcp));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Notes an address that the sender uses, if it has yet to learn it. A packet claims one such
    /// address; false for a second.
    fn take(&mut self, frame: &Frame, device: Option<&Device>, address: IpAddr) -> bool {
        let sender = Sender::new(device, frame.source);
        if self.oracle.is_new(device, &sender, address) {
            let another = self.claim.is_some_and(|claim| claim != address);
            self.claim = Some(address);
            return !another;
        }
        true
    }

    /// The sender learns the address that its packet claims, if there is room.
    fn settle(
        &mut self,
        frame: &Frame,
        device: Option<&Device>,
        zone: &str,
        reason: Reason,
    ) -> Result<(), Drop> {
        if let Some(address) = self.claim {
            let sender = Sender::new(device, frame.source);
            if !self.oracle.may_learn(&sender, address) {
                return Err(Drop::because(reason));
            }
            self.oracle.learn(address, sender, zone);
        }
        Ok(())
    }

    /// A frame that leaves through a guarded port.
    pub(super) fn leave(
        &mut self,
        at: &Where,
        from: &From,
        zone: &'a str,
        frame: &Frame,
        control: Option<Control>,
    ) -> Result<Must, Drop> {
        // Into quarantine goes what its devices need to be found again, to everybody or to them.
        let is_known = frame.destination[0] & 1 == 1
            || self.oracle.with_mac(frame.destination).is_some()
            || self.oracle.is_own_mac(frame.destination);
        let ip = match &frame.content {
            Content::Ip(ip) => ip,
            Content::Other(_) if self.is_cut => return Err(Drop::because(Reason::Quarantined)),
            Content::Arp(_) if self.is_cut && !is_known => {
                return Err(Drop::because(Reason::Quarantined));
            }
            Content::Arp(Some(arp)) if *from == From::Uplink => {
                self.claims_from_uplink(frame, *arp)?;
                return Ok(Must::pass(Reason::Control));
            }
            Content::Arp(_) | Content::Other(_) => return Ok(Must::pass(Reason::Control)),
        };
        if is_mapped(ip.source) {
            return Err(Drop::because(Reason::SpoofedSource));
        }
        let membership = matches!(
            control,
            Some(Control::Membership | Control::MembershipQuery)
        );
        if self.is_cut && leaves_as_control(ip) && (!is_known || is_report(ip) || is_query(ip)) {
            return Err(Drop::because(Reason::Quarantined));
        }
        // From the uplink, control is control of this link: not what the router has forwarded.
        let on_link = if membership {
            stays_on_link(frame, ip)
        } else {
            !matches!(ip.upper, Upper::Udp { .. }) || !self.oracle.is_own_mac(frame.source)
        };
        let aside = *from == From::Uplink && !on_link;
        if leaves_as_control(ip) && !aside {
            if *from == From::Uplink {
                self.controls_from_uplink(ip, control)?;
            }
            // Another hop limit shows that the router has forwarded it, and discovery must not be.
            let forwarded = is_discovery(ip) && ip.source.is_ipv6() && ip.hop_limit != 255;
            if matches!(from, From::Guarded(_)) && forwarded {
                return Err(Drop::because(Reason::NdSpoof));
            }
            self.take_lease(at, frame, ip, zone);
            return Ok(Must::pass(Reason::Control));
        }
        if ip.upper == Upper::Hidden && matches!(from, From::Guarded(_)) {
            // The flow of a later fragment is not known here: to a group it may go only within its
            // zone.
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
            return self.leave_to_group(from, frame, ip, zone);
        }
        // An end that sends through a guarded port was judged there. From elsewhere, its address is
        // spoofed.
        if let Some(flow) = self.flows.iter().find(|flow| flow.side(ip).is_some()) {
            let sender = usize::from(flow.side(ip) == Some(false));
            let again = self.is_cut && matches!(from, From::Guarded(_));
            let judged = matches!(flow.ways[sender], Some(Way::Guarded { .. }));
            if judged && may_follow(ip) && !again {
                return match from {
                    From::Guarded(_) if self.is_misdirected(at, frame, ip) => {
                        Err(Drop::because(Reason::Misdirected))
                    }
                    From::Guarded(_) => Ok(Must::pass(Reason::Established)),
                    From::Router | From::Uplink => Err(Drop::because(Reason::SpoofedSource)),
                };
            }
        }
        let goes_on = !self.is_cut && self.goes_on(ip, &self.way(at, frame, ip, false));
        if !goes_on {
            self.may_send_out(from, ip)?;
        }
        if self.is_misdirected(at, frame, ip) {
            return Err(Drop::because(Reason::Misdirected));
        }
        if self.is_cut && matches!(from, From::Guarded(_)) {
            let admitted = self.asked_again(frame, ip);
            return admitted.map_err(|_| Drop::because(Reason::Quarantined));
        }
        self.admit(at, frame, ip, self.oracle.end(ip.source))
    }

    /// What policy says of a packet that was judged where it entered, and now leaves into
    /// quarantine; its flow stays as it is.
    fn asked_again(&self, frame: &Frame, ip: &Ip) -> Result<Must, Drop> {
        let cut = Drop::because(Reason::Quarantined);
        let (source, to) = (self.oracle.end(ip.source), self.oracle.end(ip.destination));
        let message = Message::of(ip);
        // What needs no rule was judged as control.
        let in_vain = leaves_as_control(ip) && !matches!(ip.upper, Upper::Udp { .. });
        if self.oracle.is_quarantined(source) || in_vain || message == Message::Error {
            return Err(cut);
        }
        let flow = self.flows.iter().find(|flow| flow.side(ip).is_some());
        let flow = flow.filter(|flow| !flow.is_closing() || message != Message::Opens);
        let rules = match flow {
            Some(flow) => {
                let (opener, other) = match flow.side(ip) {
                    Some(true) => (source, to),
                    _ => (to, source),
                };
                let ends = (flow.opener.0, flow.other.0);
                let admitted = self
                    .oracle
                    .admitted(self.now, opener, other, flow.asks, ends);
                if is_answer(frame, ip) {
                    self.answered(admitted, (opener, other), flow.other)
                } else {
                    admitted
                }
            }
            None if message == Message::Opens => {
                let ends = (ip.source, ip.destination);
                let admitted = self.oracle.admitted(self.now, source, to, asks(ip), ends);
                match ip.upper {
                    Upper::Udp { to: port, .. } if is_answer(frame, ip) => {
                        self.answered(admitted, (source, to), (ip.destination, port))
                    }
                    _ => admitted,
                }
            }
            None => Err(cut),
        };
        Ok(Must {
            rules: rules?,
            ..Must::pass(Reason::Rule)
        })
    }

    /// Whether a frame's MAC is one device's and its packet's address is not that device's, unless
    /// the device is the next hop on the way to a host without a MAC here.
    fn is_misdirected(&self, at: &Where, frame: &Frame, ip: &Ip) -> bool {
        let Some(device) = self.oracle.with_mac(frame.destination) else {
            return false;
        };
        if self.oracle.is_own_mac(frame.destination) {
            return false;
        }
        let bridged =
            !self.oracle.port_of(at.interface()).router && !self.oracle.is_own_mac(frame.source);
        match self.oracle.end(ip.destination) {
            End::Router => true,
            End::Other {
                device: Some(owner),
                ..
            } => owner.name != device.name && (bridged || !owner.macs.is_empty()),
            // A link-local one may be its own, unless another has claimed it.
            End::Other { .. } if is_link_local(ip.destination) => {
                self.oracle.is_ours(ip.destination)
            }
            End::Other { .. } => {
                // It may take this address as its own.
                let learns = learns(device, ip.destination)
                    && self.oracle.is_in(&device.zone, ip.destination);
                bridged && !learns
            }
        }
    }

    /// Whether it is the next packet of a flow, from where that end's packets come: then the end
    /// was judged before, also when a device has since taken its address.
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
            From::Uplink => {
                // What NAT gives the router's address is the router's word.
                let rewritten = self.oracle.is_the_routers(ip.source) && self.rewrites(ip.source);
                rewritten || self.oracle.may_come_up(ip.source)
            }
        };
        if may_send {
            Ok(())
        } else {
            Err(Drop::because(Reason::SpoofedSource))
        }
    }

    /// A frame to a group is judged for each port that it leaves through, and opens no flow.
    fn leave_to_group(
        &mut self,
        from: &From,
        frame: &Frame,
        ip: &Ip,
        zone: &'a str,
    ) -> Result<Must, Drop> {
        self.may_send_out(from, ip)?;
        let source = self.oracle.end(ip.source);
        let to = self.oracle.end(ip.destination);
        let cut = self.is_cut || self.oracle.is_cut(source, to);
        if self.is_cut && self.oracle.is_quarantined(source) {
            return Err(Drop::because(Reason::Quarantined));
        }
        let is_near = match (from, source) {
            (From::Guarded(_), End::Other { zone: own, .. }) => own == Some(zone),
            (From::Guarded(_), End::Router) => false,
            _ => true,
        };
        // Reports and queries that are not for this link belong to no service.
        let in_vain = leaves_as_control(ip) && !matches!(ip.upper, Upper::Udp { .. });
        let group = ip.destination;
        if self.is_related(ip, None) && !self.is_cut {
            return Ok(Must::pass(Reason::Related));
        }
        let admitted =
            if in_vain || Message::of(ip) == Message::Opens && self.oracle.is_reserved(ip.source) {
                Err(Drop::because(Reason::NoRule))
            } else if Message::of(ip) == Message::Opens {
                let asks = asks(ip);
                self.oracle
                    .admitted_to_group(self.now, source, group, zone, is_near, asks)
            } else {
                Err(Drop::because(Reason::MidFlow))
            };
        match admitted {
            Ok(rules) => {
                if !matches!(from, From::Guarded(_)) {
                    self.ask(frame, ip, source, &rules);
                }
                Ok(Must {
                    rules,
                    ..Must::pass(Reason::Rule)
                })
            }
            Err(_) if cut => Err(Drop::because(Reason::Quarantined)),
            Err(drop) => Err(drop),
        }
    }

    /// An uplink may claim any address but those of guarded devices and of the router.
    fn claims_from_uplink(&self, frame: &Frame, arp: Arp) -> Result<(), Drop> {
        let own =
            arp.sender.is_unspecified() || self.oracle.may_come_from_beside(arp.sender.into());
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
            Some(
                Control::DhcpClient
                | Control::DhcpServer
                | Control::DhcpRelay
                | Control::Membership
                | Control::MembershipQuery,
            )
            | None => {
                return Ok(());
            }
        };
        let may_claim =
            |target: Ipv6Addr| !is_odd(target.into()) && may_be(linked(target.into(), ip.link));
        if ip.hop_limit != 255 || claimed.is_some_and(|target| !may_claim(target)) {
            return Err(Drop::because(Reason::NdSpoof));
        }
        Ok(())
    }
}
