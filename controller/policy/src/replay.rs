//! Judges live flows, and traffic that observe has let pass, by the next tables. Pure.
//!
//! The kernel's own code judges by policy. Of place only this is checked: whether the sender's MAC
//! still belongs to its device, on an interface that is still guarded.

use std::{collections::HashMap, net::IpAddr};

use wardline_ebpf::{
    abi::{Address, End, Flow, Port, ROUTER, Reason, Settings, behind_key, mac_key, zone},
    cell::Cell32,
    flows, policy,
};

use crate::{live::Live, model::Model, tables::Tables};

/// Tables that are about to take force, or could.
pub struct Replay<'a> {
    tables: &'a Tables,
    model: Model<'a>,
    tick: u32,
    /// The selectors of the names of addresses.
    names: HashMap<Address, Vec<u32>>,
}

/// A flow as policy sees it: the opener first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// The ends' addresses.
    pub addresses: [IpAddr; 2],
    /// The ends' devices, by number; 0: none.
    pub devices: [u32; 2],
    /// The service key.
    pub service: u32,
}

/// A fault of form or place that mode observe has let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// What it would be dropped for.
    pub reason: Reason,
    /// The interface where it was judged.
    pub interface: u32,
    /// The zone that judged it, by number; 0: its VLAN has none.
    pub zone: u16,
    /// The MAC that it came from.
    pub mac: u64,
}

/// What happens to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// [`Reason::Rule`], [`Reason::Observed`], or the reason for which it is dropped.
    pub reason: Reason,
    /// The rule that decides, by number; 0: none.
    pub rule: u32,
    /// Whether an end is the router.
    pub is_the_routers: bool,
}

impl<'a> Replay<'a> {
    /// Prepares tables for a replay at a tick.
    pub fn new(tables: &'a Tables, tick: u32) -> Self {
        let model = Model::new(tables, Settings::for_flows(64));
        model.set_tick(tick);
        Self {
            tables,
            model,
            tick,
            names: HashMap::new(),
        }
    }

    /// Takes account of what is known of names: addresses, each with the number of a selector.
    pub fn know(&mut self, names: impl IntoIterator<Item = (Address, u32)>) {
        for (address, selector) in names {
            self.names.entry(address).or_default().push(selector);
        }
    }

    /// Judges a live flow.
    pub fn flow(&self, flow: &Live) -> Outcome {
        let (key, bits) = (flow.key, flow.state);
        let legs = if flows::opener(bits) == 0 {
            [0, 1]
        } else {
            [1, 0]
        };
        let mut outcome = self.asked(&asked(flow));
        let opener_is_router = flow.devices[legs[0]] == ROUTER;
        // What NAT has made of a packet is admitted where that packet entered.
        let admitted = match outcome.reason {
            Reason::Quarantined => false,
            Reason::DeniedByRule | Reason::Rule => opener_is_router,
            _ => true,
        };
        if flow.bind[legs[0]] == Flow::NAT && admitted {
            (outcome.reason, outcome.rule) = (Reason::Rule, 0);
        }
        for leg in legs {
            let (bind, device) = (flow.bind[leg], flow.devices[leg]);
            if bind >> 16 != 0
                && let Some(reason) =
                    self.misplaced(bind, device, if leg == 0 { key.low } else { key.high })
            {
                return Outcome {
                    reason,
                    rule: 0,
                    ..outcome
                };
            }
        }
        outcome
    }

    /// Judges by policy alone.
    pub fn asked(&self, asked: &Asked) -> Outcome {
        let [from, to] = [0, 1].map(|leg| self.end(asked.addresses[leg], asked.devices[leg]));
        let is_the_routers = from.is_router() || to.is_router();
        let outcome = |reason, rule| Outcome {
            reason,
            rule,
            is_the_routers,
        };
        let place = Cell32::default();
        let (model, tick) = (&self.model, self.tick);
        let mut decision = policy::judge(model, 0, &from, &to, asked.service, tick, &place);
        if policy::is_undecided(&decision) && policy::may_have_names(&to) {
            let names = self.names.get(&Address::from(asked.addresses[1]));
            for selector in names.into_iter().flatten() {
                let (service, best) = (asked.service, &mut decision);
                policy::judge_name(model, 0, &from, *selector, service, tick, &place, best);
            }
        }
        let reason = match decision.reason {
            reason @ (Reason::Rule | Reason::Quarantined) => reason,
            _ if self.observes(&[from, to]) => Reason::Observed,
            reason => reason,
        };
        outcome(reason, policy::rule_number(decision.rule))
    }

    /// Whether a packet with a fault, from this address, would be dropped for it.
    pub fn drops(&self, fault: &Fault, source: IpAddr) -> bool {
        let zone = self.tables.zones.get(&u32::from(fault.zone));
        let settings = if fault.zone == 0 { None } else { zone };
        let observes = match settings {
            Some(settings) => settings & zone::OBSERVE != 0,
            None => {
                let port = self.tables.ports.get(&fault.interface);
                port.is_none_or(|port| port.flags & Port::OBSERVES != 0)
            }
        };
        let device = self.tables.macs.get(&mac_key(0, fault.mac));
        let device = device.map_or(0, |mac| mac.device);
        let owner = self.tables.addresses.get(&Address::from(source));
        let admits_any = settings.is_some_and(|settings| settings & zone::ADMIT_ANY != 0);
        let is_mended = match fault.reason {
            Reason::UnknownDevice => device != ROUTER && device != 0 || admits_any,
            Reason::SpoofedSource => device != 0 && owner.is_some_and(|it| it.device == device),
            _ => false,
        };
        !observes && !is_mended
    }

    /// What an address stands for, even if its device has learned it.
    fn end(&self, address: IpAddr, device: u32) -> End {
        let mut end = End::default();
        policy::end(&self.model, 0, &Address::from(address), &mut end);
        if end.device == 0
            && let Some(known) = self.tables.devices.get(&device)
            && (known.zone == end.zone || Address::from(address).is_link_local())
        {
            let (from, to) = (end.from | known.from, end.to | known.to);
            end = End {
                region: end.region,
                from,
                to,
                ..*known
            };
        }
        end
    }

    /// The reason if packets from an interface and a MAC would be dropped before policy is asked.
    fn misplaced(&self, bind: u64, device: u32, address: Address) -> Option<Reason> {
        let port = self.tables.ports.get(&(bind as u32 & 0xffff))?;
        if port.flags & Port::GUARDED == 0 {
            return None;
        }
        if port.flags & Port::BARE != 0 {
            return self.misplaced_on_bare(port, bind as u32 & 0xffff, device, address);
        }
        let Some(mac) = self.tables.macs.get(&mac_key(0, bind >> 16)) else {
            let settings = self
                .tables
                .zones
                .get(&u32::from(port.zone))
                .copied()
                .unwrap_or(0);
            return (settings & zone::ADMIT_ANY == 0).then_some(Reason::UnknownDevice);
        };
        if mac.device == ROUTER {
            return Some(Reason::UnknownDevice);
        }
        let named = self.tables.addresses.get(&address);
        let owner = named.map_or(mac.device, |end| end.device);
        (mac.device != device || owner != device).then_some(Reason::SpoofedSource)
    }

    /// The same on an interface without a link header, where the address tells the device.
    fn misplaced_on_bare(
        &self,
        port: &Port,
        interface: u32,
        device: u32,
        address: Address,
    ) -> Option<Reason> {
        let named = self.tables.addresses.get(&address);
        let owner = named.map_or(0, |end| end.device);
        let settings = self.tables.zones.get(&u32::from(port.zone));
        let admits_any = settings.is_some_and(|it| it & zone::ADMIT_ANY != 0);
        let behind = behind_key(0, interface, owner);
        match owner {
            0 => (!admits_any).then_some(Reason::UnknownDevice),
            _ if owner == device && self.tables.places.contains_key(&behind) => None,
            _ => Some(Reason::SpoofedSource),
        }
    }

    /// Whether at least one end is in a zone with ports, and every such zone is in mode observe.
    fn observes(&self, ends: &[End]) -> bool {
        let settings = ends
            .iter()
            .filter(|end| end.zone != 0)
            .filter_map(|end| self.tables.zones.get(&u32::from(end.zone)))
            .filter(|settings| **settings & zone::HAS_PORTS != 0);
        let mut observing = settings
            .map(|settings| settings & zone::OBSERVE != 0)
            .peekable();
        observing.peek().is_some() && observing.all(|observes| observes)
    }
}

/// The service that the opener of a flow asked for, and its ends.
pub fn asked(flow: &Live) -> Asked {
    let (key, bits) = (flow.key, flow.state);
    let protocol = flow.protocol();
    let (from, to) = if flows::opener(bits) == 0 {
        (0, 1)
    } else {
        (1, 0)
    };
    let address = |leg: usize| IpAddr::from(if leg == 0 { key.low } else { key.high });
    let low = if matches!(protocol, 1 | 58) {
        (key.ports as u32 >> 8 & 0xff) << 8
    } else {
        (key.ports >> if to == 0 { 48 } else { 32 }) as u32 & 0xffff
    };
    Asked {
        addresses: [address(from), address(to)],
        devices: [flow.devices[from], flow.devices[to]],
        service: u32::from(protocol) << 16 | low,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use wardline_ebpf::abi::{Bucket, FlowEntry};

    use super::*;
    use crate::ward::{LAN1, LAN2, UPLINK, Ward};

    const WEB: u32 = 6 << 16 | 443;
    const PUMP_MAC: u64 = 0x02_00_00_00_01_01;
    const CAMERA_MAC: u64 = 0x02_00_00_00_02_01;

    fn asked(addresses: [&str; 2], devices: [u32; 2], service: u32) -> Asked {
        Asked {
            addresses: addresses.map(|address| address.parse().unwrap()),
            devices,
            service,
        }
    }

    #[test]
    fn policy_is_asked_about_both_ends_and_the_service() {
        let ward = Ward::new(|_| (), &[]);
        let replay = Replay::new(&ward.tables, 1);
        let is = |from, to, service| {
            let outcome = replay.asked(&asked([from, to], [0, 0], service));
            (outcome.reason, outcome.rule, outcome.is_the_routers)
        };
        let web = ward.rule("web");
        assert_eq!(
            is("10.1.0.11", "192.0.2.1", WEB),
            (Reason::Rule, web, false)
        );
        assert_eq!(
            is("10.1.0.11", "192.0.2.1", WEB + 1),
            (Reason::NoRule, 0, false)
        );
        assert_eq!(
            is("192.0.2.1", "10.1.0.11", WEB),
            (Reason::NoRule, 0, false)
        );
        assert_eq!(is("10.1.0.11", "10.1.0.1", WEB), (Reason::NoRule, 0, true));
        // Mode observe lets a packet pass only when every zone that has ports observes.
        assert_eq!(
            is("10.2.0.11", "192.0.2.1", WEB),
            (Reason::Observed, 0, false)
        );
        assert_eq!(
            is("10.2.0.11", "10.1.0.11", WEB),
            (Reason::NoRule, 0, false)
        );
    }

    #[test]
    fn a_learned_address_is_its_devices() {
        let ward = Ward::new(
            |policy| policy.rules[0].from = vec!["device:visitor".to_owned()],
            &[],
        );
        let replay = Replay::new(&ward.tables, 1);
        let is = |device| {
            let asked = asked(["10.1.0.99", "192.0.2.1"], [device, 0], WEB);
            replay.asked(&asked).reason
        };
        assert_eq!(is(0), Reason::NoRule);
        assert_eq!(is(ward.device("visitor")), Reason::Rule);
    }

    #[test]
    fn a_fault_drops_where_its_zone_enforces_unless_it_is_mended() {
        let ward = Ward::new(|_| (), &[]);
        let replay = Replay::new(&ward.tables, 1);
        let fault = |reason, interface, zone, mac| Fault {
            reason,
            interface,
            zone,
            mac,
        };
        let pumps = ward.zone("pumps") as u16;
        let cameras = ward.zone("cameras") as u16;
        let source = "10.1.0.11".parse().unwrap();
        let drops = |reason, mac| replay.drops(&fault(reason, LAN1, pumps, mac), source);
        assert!(drops(Reason::Malformed, PUMP_MAC));
        assert!(drops(Reason::UnknownDevice, 0x02_00_00_00_ee_ee));
        // The next policy lists the MAC, or the address for it.
        assert!(!drops(Reason::UnknownDevice, PUMP_MAC));
        assert!(!drops(Reason::SpoofedSource, PUMP_MAC));
        assert!(drops(Reason::SpoofedSource, CAMERA_MAC));
        for (interface, zone) in [(LAN2, cameras), (LAN2, 0), (UPLINK, 0)] {
            let fault = fault(Reason::Malformed, interface, zone, CAMERA_MAC);
            assert!(!replay.drops(&fault, source), "{fault:?}");
        }
        assert!(replay.drops(&fault(Reason::WrongVlan, LAN1, 0, PUMP_MAC), source));
    }

    /// A flow opened from the pump's address to 192.0.2.1, with the place and device of its source.
    fn flow(interface: u32, mac: u64, device: u32) -> Live {
        let bucket = Bucket::default();
        let FlowEntry { flow, ends } = &bucket.ways[0];
        let (low, high) = (Address::v4([10, 1, 0, 11]), Address::v4([192, 0, 2, 1]));
        for (cell, word) in ends.addresses.iter().zip([low.0, high.0].concat()) {
            cell.store(word);
        }
        flow.key[1].store(4000 << 48 | 443 << 32 | 6);
        flow.bind[0].store(mac << 16 | u64::from(interface));
        ends.devices[0].store(device);
        Live::of(&bucket, 0)
    }

    #[test]
    fn a_flow_is_asked_about_as_its_opener_asked() {
        let live = flow(LAN1, PUMP_MAC, 2);
        let expected = Asked {
            addresses: ["10.1.0.11", "192.0.2.1"].map(|it| it.parse().unwrap()),
            devices: [2, 0],
            service: WEB,
        };
        assert_eq!(super::asked(&live), expected);
    }

    #[test]
    fn a_flow_whose_sender_is_no_longer_in_place_ends_whatever_policy_says() {
        let ward = Ward::new(|_| (), &[]);
        let replay = Replay::new(&ward.tables, 1);
        let pump = ward.device("pump");
        let is = |live: &Live| replay.flow(live).reason;
        assert_eq!(is(&flow(LAN1, PUMP_MAC, pump)), Reason::Rule);
        assert_eq!(
            is(&flow(LAN1, 0x02_00_00_00_ee_ee, pump)),
            Reason::UnknownDevice
        );
        assert_eq!(is(&flow(LAN1, CAMERA_MAC, pump)), Reason::SpoofedSource);
        assert_eq!(is(&flow(LAN1, PUMP_MAC, pump + 1)), Reason::SpoofedSource);
        // A sender that no longer comes through a guarded port is not checked for place.
        assert_eq!(is(&flow(UPLINK, CAMERA_MAC, pump)), Reason::Rule);
    }
}
