//! The contents of the kernel's maps for one revision, and entries that were amended since.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use wardline_ebpf::abi::{Address, End, Interval, Mac, NameText, Port, Watched, mac_key};

use crate::{intent, words::mac::mac_number};

/// The contents of one revision's maps. Keys that have a slot in the kernel have slot 0 here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Interfaces, by index.
    pub ports: BTreeMap<u32, Port>,
    /// Zones by interface and VLAN, and the other protocols that pass.
    pub places: BTreeMap<u64, u32>,
    /// Settings, by zone number; 0: [`pairs_of_any`](wardline_ebpf::abi::zone::pairs_of_any).
    pub zones: BTreeMap<u32, u32>,
    /// Devices, by MAC; and the router's own MACs.
    pub macs: BTreeMap<u64, Mac>,
    /// Ends with an exact address.
    pub addresses: BTreeMap<Address, End>,
    /// Ends by prefix: the address and its length, of 128 bits.
    pub prefixes: BTreeMap<(Address, u8), End>,
    /// Which zones share which prefixes: ends with [`End::SHARED`]. Others are for zones that share
    /// a prefix around one, but not that one.
    pub shares: BTreeMap<(u16, (Address, u8)), End>,
    /// Devices that learn their addresses, by number.
    pub devices: BTreeMap<u32, End>,
    /// What pairs of names may do; the opener's name has [`KEPT`](wardline_ebpf::abi::KEPT) in
    /// pairs that hold while an end is in quarantine. Tables of the same intent share them.
    pub pairs: Arc<BTreeMap<(u32, u32), Intervals>>,
    /// Names, with the selectors that each stands in. Tables of the same intent share them.
    pub names: Arc<BTreeMap<NameText, Watched>>,
    /// Whose answers are believed besides the router's.
    pub resolvers: BTreeMap<Address, u32>,
    /// Ports for which there is no room, by number.
    pub refused: BTreeMap<u32, NoRoom>,
    /// Ports at which nothing passes, by number.
    pub shut: BTreeSet<u32>,
}

/// Why there is no room for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// The places that it needs.
    pub needed: usize,
    /// The places that other ports leave.
    pub left: usize,
    /// The places that there are.
    pub most: usize,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, left, most } = self;
        write!(f, "it needs {needed} places, and {left} of {most} are left")
    }
}

impl Tables {
    /// Whether an interface, by its number, is a guarded port at which zones are admitted.
    pub fn admits(&self, interface: u32) -> bool {
        self.guards(interface) && !self.shut.contains(&interface)
    }

    /// Whether an interface, by its number, is a guarded port.
    pub fn guards(&self, interface: u32) -> bool {
        let port = self.ports.get(&interface);
        port.is_some_and(|port| port.flags & Port::GUARDED != 0)
    }
}

/// Entries of the maps that differ from the compiled ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Amendment {
    /// As [`Tables::macs`].
    pub macs: BTreeMap<u64, Mac>,
    /// As [`Tables::addresses`].
    pub addresses: BTreeMap<Address, End>,
    /// As [`Tables::devices`].
    pub devices: BTreeMap<u32, End>,
    /// As [`Tables::ports`].
    pub ports: BTreeMap<u32, Port>,
}

impl Amendment {
    /// The entry of a port, as it is with or without quarantine; nothing when it is no port.
    pub fn port(tables: &Tables, interface: u32, quarantined: bool) -> Self {
        let port = tables.ports.get(&interface);
        let port = port.filter(|port| port.flags & Port::GUARDED != 0);
        let ports = port.map(|port| {
            let flags = if quarantined {
                port.flags | Port::QUARANTINED
            } else {
                port.flags & !Port::QUARANTINED
            };
            (interface, Port { flags, ..*port })
        });
        Self {
            ports: ports.into_iter().collect(),
            ..Self::default()
        }
    }

    /// All entries of a device, as they are with or without quarantine.
    pub fn quarantine(
        tables: &Tables,
        device: &intent::Device,
        number: u32,
        quarantined: bool,
    ) -> Self {
        let flagged = |flags: u16| {
            if quarantined {
                flags | End::QUARANTINED
            } else {
                flags & !End::QUARANTINED
            }
        };
        let end = |end: &End| End {
            flags: flagged(end.flags),
            ..*end
        };
        let macs = device.macs.iter().filter_map(|mac| {
            let key = mac_key(0, mac_number(mac));
            let mut entry = *tables.macs.get(&key)?;
            entry.flags = flagged(entry.flags);
            if entry.end.device != 0 {
                entry.end = end(&entry.end);
            }
            Some((key, entry))
        });
        let addresses = device.addresses.iter().filter_map(|address| {
            let address = Address::from(*address);
            let listed = tables.addresses.get(&address)?;
            // It may be the router's by now.
            (listed.device == number).then(|| (address, end(listed)))
        });
        let own = tables.devices.get(&number);
        Self {
            macs: macs.collect(),
            addresses: addresses.collect(),
            devices: own.map(|own| (number, end(own))).into_iter().collect(),
            ports: BTreeMap::new(),
        }
    }

    /// Takes over later entries, in place of its own.
    pub fn extend(&mut self, later: Self) {
        self.macs.extend(later.macs);
        self.addresses.extend(later.addresses);
        self.devices.extend(later.devices);
        self.ports.extend(later.ports);
    }
}

/// What a pair may do: sorted, starting at 0, never empty. Equal ones share an allocation.
pub type Intervals = Arc<[Interval]>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::compile,
        quarantine::{Hold, Identity, Quarantine},
        ward::{BRIDGE, LAN1, UPLINK, Ward},
    };

    #[test]
    fn an_amendment_is_what_compiling_anew_would_have_made_of_the_device() {
        let (free, cut) = (
            Ward::new(|_| (), &[]),
            Ward::new(|_| (), &["pump", "visitor"]),
        );
        for (from, to, quarantined) in [(&free, &cut, true), (&cut, &free, false)] {
            for name in ["pump", "visitor"] {
                let mut devices = from.intent.devices.iter();
                let device = devices.find(|device| device.name == name);
                let device = device.expect("a device of the ward");
                let number = from.device(name);
                let amended = Amendment::quarantine(&from.tables, device, number, quarantined);
                assert!(!amended.macs.is_empty());
                assert_eq!(amended.addresses.len(), device.addresses.len());
                for (key, mac) in &amended.macs {
                    assert_eq!(*mac, to.tables.macs[key], "{name}");
                }
                for (address, end) in &amended.addresses {
                    assert_eq!(*end, to.tables.addresses[address], "{name}");
                }
                for (number, end) in &amended.devices {
                    assert_eq!(*end, to.tables.devices[number], "{name}");
                }
            }
        }
    }

    #[test]
    fn an_amendment_is_what_compiling_anew_would_have_made_of_the_port() {
        let ward = Ward::new(|_| (), &[]);
        let cut_off = |name: &str| (Identity::Port(name.to_owned()), Hold::named(name));
        let quarantined: Quarantine = ["lan1", "uplink"].map(cut_off).into_iter().collect();
        let (inventory, ids, clock) = (&ward.inventory, &ward.ids, &ward.clock);
        let cut = compile(&ward.intent, inventory, ids, &quarantined, clock);
        let is_cut = |(_, port): &(&u32, &Port)| port.flags & Port::QUARANTINED != 0;
        let found: Vec<u32> = cut.ports.iter().filter(is_cut).map(|it| *it.0).collect();
        assert_eq!(found, [LAN1], "the uplink is no port");
        let amended = Amendment::port(&ward.tables, LAN1, true);
        assert_eq!(amended.ports, [(LAN1, cut.ports[&LAN1])].into());
        let amended = Amendment::port(&cut, LAN1, false);
        assert_eq!(amended.ports, [(LAN1, ward.tables.ports[&LAN1])].into());
        for index in [UPLINK, BRIDGE, 99] {
            assert_eq!(Amendment::port(&cut, index, true), Amendment::default());
        }
    }

    #[test]
    fn of_two_amendments_the_later_one_stands() {
        let ward = Ward::new(|_| (), &[]);
        let of = |name: &str, quarantined| {
            let mut devices = ward.intent.devices.iter();
            let device = devices.find(|device| device.name == name);
            let device = device.expect("a device of the ward");
            Amendment::quarantine(&ward.tables, device, ward.device(name), quarantined)
        };
        let mut amended = of("pump", true);
        amended.extend(of("camera", true));
        amended.extend(of("pump", false));
        let mut expected = of("camera", true);
        expected.extend(of("pump", false));
        assert_eq!(amended, expected);
    }
}
