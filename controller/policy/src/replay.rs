//! What the next tables would make of flows that live, and of what zones in observe let pass. Pure.
//!
//! The policy is asked by the kernel's own code; of place it is known whether the sender's MAC is
//! still that of its device and its interface still guarded.

use std::net::IpAddr;

use wardline_ebpf::{
    abi::{self, End, Port, Reason, Settings, mac_key, zone},
    cell::Cell32,
    flows, policy,
};

use crate::{
    live::Live,
    model::Model,
    tables::Tables,
    words::address::{address_of, ip_of},
};

/// Tables that take force next, or may.
pub struct Replay<'a> {
    tables: &'a Tables,
    model: Model<'a>,
    tick: u32,
}

/// A flow as far as policy asks about it: the opener first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// The ends' addresses.
    pub addresses: [IpAddr; 2],
    /// The ends' devices, by number; 0: none.
    pub devices: [u32; 2],
    /// The service key.
    pub service: u32,
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// [`Reason::Rule`], [`Reason::Observed`], or what it is dropped for.
    pub reason: Reason,
    /// The rule that decides, by number; 0: none.
    pub rule: u32,
    /// Whether an end is the router.
    pub is_the_routers: bool,
}

impl<'a> Replay<'a> {
    /// Tables at a time.
    pub fn new(tables: &'a Tables, tick: u32) -> Self {
        let model = Model::new(tables, Settings::for_flows(64));
        model.set_tick(tick);
        Self {
            tables,
            model,
            tick,
        }
    }

    /// What becomes of a flow that lives.
    pub fn flow(&self, flow: &Live) -> Outcome {
        let (key, bits) = (flow.key, flow.state);
        let legs = if flows::opener(bits) == 0 {
            [0, 1]
        } else {
            [1, 0]
        };
        let outcome = self.asked(&asked(flow));
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

    /// What policy says.
    pub fn asked(&self, asked: &Asked) -> Outcome {
        let [from, to] = [0, 1].map(|leg| self.end(asked.addresses[leg], asked.devices[leg]));
        let is_the_routers = from.is_router() || to.is_router();
        let outcome = |reason, rule| Outcome {
            reason,
            rule,
            is_the_routers,
        };
        let place = Cell32::default();
        let decision = policy::judge(&self.model, 0, &from, &to, asked.service, self.tick, &place);
        let reason = match decision.reason {
            reason @ (Reason::Rule | Reason::Quarantined) => reason,
            _ if self.observes(&[from, to]) => Reason::Observed,
            reason => reason,
        };
        outcome(reason, policy::rule_number(decision.rule))
    }

    /// What an address is: also one that its device has learned.
    fn end(&self, address: IpAddr, device: u32) -> End {
        let mut end = End::default();
        policy::end(&self.model, 0, &address_of(address), &mut end);
        if end.device == 0
            && let Some(known) = self.tables.devices.get(&device)
            && known.zone == end.zone
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

    /// Why packets from an interface and a MAC would not get as far as policy.
    fn misplaced(&self, bind: u64, device: u32, address: abi::Address) -> Option<Reason> {
        let port = self.tables.ports.get(&(bind as u32 & 0xffff))?;
        if port.flags & Port::GUARDED == 0 {
            return None;
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
        let named = self.tables.addresses.get(&address);
        let owner = named.map_or(mac.device, |end| end.device);
        (mac.device != device || owner != device).then_some(Reason::SpoofedSource)
    }

    /// Whether every end that is a zone with ports is in mode observe, and one is.
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

/// What the opener of a flow asked for.
pub fn asked(flow: &Live) -> Asked {
    let (key, bits) = (flow.key, flow.state);
    let protocol = flow.protocol();
    let (from, to) = if flows::opener(bits) == 0 {
        (0, 1)
    } else {
        (1, 0)
    };
    let address = |leg: usize| ip_of(if leg == 0 { key.low } else { key.high });
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
