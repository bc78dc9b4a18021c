//! What tables a document is compiled to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use wardline_ebpf::abi::Address;
use wardline_proto::v1::{Action, Device, Policy, Rule};

use super::*;
use crate::{
    ward::{BRIDGE, LAN1, LAN2, UPLINK, Ward},
    words::mac::Mac as Owner,
};

#[test]
fn a_rule_between_a_zone_and_a_network_is_one_pair_however_many_devices() {
    let without = Ward::new(|policy| policy.rules.clear(), &[]);
    let with = Ward::new(|_| (), &[]);
    assert_eq!(with.tables.pairs.len(), without.tables.pairs.len() + 1);
    let web = 6 << 16 | 443;
    let allows = |rule: u32| {
        let mut intervals = with.tables.pairs.values().flat_map(|list| list.iter());
        intervals.any(|it| it.start == web && it.allow == rule)
    };
    assert!(allows(with.rule("web")), "{:?}", with.tables.pairs);
}

#[test]
fn a_label_is_one_class_however_many_devices_have_it_and_rules_name_it() {
    let with = |rules: usize| {
        let change = |policy: &mut Policy| {
            policy.zones[1]
                .labels
                .insert("ward".to_owned(), "3".to_owned());
            for n in 1..=100 {
                policy.devices.push(Device {
                    name: format!("camera-{n}"),
                    zone: "cameras".to_owned(),
                    addresses: vec![format!("10.2.1.{n}")],
                    ..Device::default()
                });
            }
            for n in 0..rules {
                policy.rules.push(Rule {
                    name: format!("labelled-{n}"),
                    from: vec!["label:ward=3".to_owned()],
                    to: vec!["zone:pumps".to_owned()],
                    services: vec![format!("tcp/{}", 1000 + n)],
                    action: Action::Allow.into(),
                    ..Rule::default()
                });
            }
        };
        Ward::new(change, &[])
    };
    let (none, many) = (with(0), with(50));
    assert_eq!(many.tables.pairs.len(), none.tables.pairs.len() + 1);
    let class = |ward: &Ward, address: [u8; 4]| ward.tables.addresses[&Address::v4(address)].class;
    let one = class(&many, [10, 2, 1, 1]);
    assert_ne!(one, 0);
    assert_eq!(class(&many, [10, 2, 1, 100]), one);
    assert_eq!(class(&none, [10, 2, 1, 1]), 0);
    assert_eq!(class(&many, [10, 1, 0, 11]), 0, "a pump");
}

#[test]
fn pairs_are_not_made_without_end() {
    // 3000 devices that rules tell apart, and each may do something with each.
    let change = |policy: &mut Policy| {
        policy.zones[1]
            .labels
            .insert("ward".to_owned(), "3".to_owned());
        for n in 0..3000 {
            let name = format!("camera-{n}");
            policy.rules.push(Rule {
                name: format!("own-{n}"),
                from: vec![format!("device:{name}")],
                to: vec!["zone:pumps".to_owned()],
                services: vec!["tcp/443".to_owned()],
                action: Action::Allow.into(),
                ..Rule::default()
            });
            policy.devices.push(Device {
                name,
                zone: "cameras".to_owned(),
                addresses: vec![format!("10.2.{}.{}", n / 250 + 1, n % 250 + 1)],
                ..Device::default()
            });
        }
        policy.rules.push(Rule {
            name: "all".to_owned(),
            from: vec!["label:ward=3".to_owned()],
            to: vec!["label:ward=3".to_owned()],
            services: vec!["tcp/80".to_owned()],
            action: Action::Allow.into(),
            ..Rule::default()
        });
    };
    // Whoever compiles it refuses it, then.
    assert_eq!(Ward::new(change, &[]).tables.pairs.len(), 0);
}

#[test]
fn what_rules_have_in_common_is_kept_once() {
    let rule = |name: &str, from: Vec<String>, to: Vec<String>| Rule {
        name: name.to_owned(),
        from,
        to,
        services: vec!["udp/123".to_owned(), "tcp/1000-2000".to_owned()],
        action: Action::Allow.into(),
        ..Rule::default()
    };
    let of = |selector: &str| vec![selector.to_owned()];
    // A hundred devices with a rule of their own each, so that no two share a class.
    let with = |more: Option<Rule>| {
        let change = |policy: &mut Policy| {
            for n in 1..=100 {
                policy.devices.push(Device {
                    name: format!("pump-{n}"),
                    zone: "pumps".to_owned(),
                    addresses: vec![format!("10.1.1.{n}")],
                    ..Device::default()
                });
                let (name, own) = (format!("own-{n}"), format!("device:pump-{n}"));
                let services = vec![format!("udp/{}", 1000 + n)];
                policy.rules.push(Rule {
                    services,
                    ..rule(&name, of(&own), of("cidr:192.0.2.0/24"))
                });
            }
            policy.rules.extend(more);
        };
        Ward::new(change, &[]).tables.pairs
    };
    let before = with(None);

    // A rule with `any` is one pair, however many devices there are.
    for (from, to) in [("any", "any"), ("zone:pumps", "any"), ("any", "zone:pumps")] {
        let after = with(Some(rule("wide", of(from), of(to))));
        assert_eq!(after.len(), before.len() + 1);
    }

    // A rule that names many devices is one pair for each, but all share one set.
    let devices = (1..=100).map(|n| format!("device:pump-{n}")).collect();
    let networks = (0..8).map(|n| format!("cidr:198.51.{}.0/24", 100 + n));
    let after = with(Some(rule("many", devices, networks.collect())));
    let new = after.iter().filter(|(pair, _)| !before.contains_key(pair));
    let sets: Vec<_> = new.map(|(_, set)| set.as_ptr()).collect();
    assert_eq!(sets.len(), 800);
    assert_eq!(BTreeSet::from_iter(sets).len(), 1);
}

/// A ward with a rule to the internet, its zones and devices changed.
fn online(change: impl FnOnce(&mut Policy)) -> Ward {
    let change = |policy: &mut Policy| {
        policy.rules[0].to.push("internet".to_owned());
        change(policy);
    };
    Ward::new(change, &[])
}

/// The region of an address that nothing lists.
fn region(ward: &Ward, address: &str) -> u32 {
    let address = Address::from(address.parse::<std::net::IpAddr>().expect("an address"));
    if let Some(end) = ward.tables.addresses.get(&address) {
        return end.region;
    }
    let end = networks::around((address, 128), |outer| ward.tables.prefixes.get(&outer));
    end.expect("everything has an end").region
}

#[test]
fn the_internet_takes_43_prefixes_and_one_pair_and_nothing_where_no_rule_names_it() {
    let (without, with) = (Ward::new(|_| (), &[]), online(|_| ()));
    let sizes = |ward: &Ward| {
        let tables = &ward.tables;
        [
            tables.prefixes.len(),
            tables.addresses.len(),
            tables.pairs.len(),
        ]
    };
    // Two families, two zones, one network of a rule; two pumps' addresses, a camera's, the
    // router's.
    assert_eq!(sizes(&without), [5, 4, 1]);
    // One of the 43, documentation, is the network of the rule.
    assert_eq!(sizes(&with), [5 + 43 - 1, 4, 2]);
    let region = |address| region(&with, address);
    assert_ne!(region("9.9.9.9"), 0);
    assert_eq!(region("10.9.9.9"), 0);
    assert_eq!(region("9.9.9.9"), region("64:ff9b::909:909"));
}

#[test]
fn zones_that_have_everything_leave_no_prefix_of_the_internet() {
    let everything = |policy: &mut Policy| {
        let subnets = ["0.0.0.0/0", "::/0"].map(str::to_owned);
        policy.zones[1].subnets.extend(subnets);
    };
    let ward = online(everything);
    let same = Ward::new(everything, &[]);
    assert_eq!(ward.tables.prefixes, same.tables.prefixes);
    assert_eq!(ward.tables.pairs, same.tables.pairs);
}

#[test]
fn what_a_zone_a_device_or_the_router_has_is_not_the_internet_through_a_nat64_either() {
    let ward = online(|policy| {
        policy.zones[0].subnets.push("9.9.9.0/24".to_owned());
        policy.devices.push(Device {
            name: "server".to_owned(),
            zone: "cameras".to_owned(),
            addresses: vec!["8.8.8.8".to_owned()],
            ..Device::default()
        });
    });
    let region = |address| region(&ward, address);
    let internet = region("9.9.8.8");
    assert_ne!(internet, 0);
    for address in ["8.8.8.9", "64:ff9b::808:809", "64:ff9b::909:808"] {
        assert_eq!(region(address), internet, "{address}");
    }
    for address in ["9.9.9.9", "64:ff9b::909:909", "8.8.8.8", "64:ff9b::808:808"] {
        assert_eq!(region(address), 0, "{address}");
    }
    // The entry beside the server's own is nobody's.
    let inventory = Inventory {
        addresses: ["7.7.7.7".parse().expect("an address")].into(),
        ..ward.inventory.clone()
    };
    let tables = ward.compiled(&inventory);
    for address in ["64:ff9b::707:707", "64:ff9b::808:808"] {
        let address: std::net::IpAddr = address.parse().expect("an address");
        let end = tables.addresses[&Address::from(address)];
        assert_eq!(end, End::default(), "{address}");
    }
}

#[test]
fn a_network_of_a_rule_is_in_part_of_the_internet() {
    let rule = |to: &str| Rule {
        name: "part".to_owned(),
        from: vec!["zone:pumps".to_owned()],
        to: vec![to.to_owned()],
        services: vec!["udp/53".to_owned()],
        action: Action::Allow.into(),
        ..Rule::default()
    };
    let pairs = |to: &str| online(|policy| policy.rules.push(rule(to))).tables.pairs;
    // The network of documentation, the internet, and this network.
    assert_eq!(pairs("cidr:10.9.9.0/24").len(), 3);
    // This one twice: an address in it is of the internet, unless a device has it.
    assert_eq!(pairs("cidr:9.9.9.0/24").len(), 4);
    assert_eq!(pairs("cidr:192.0.0.0/24").len(), 4);
}

#[test]
fn the_routers_addresses_are_the_routers_whoever_else_lists_the_subnet() {
    let ward = Ward::new(|_| (), &[]);
    let router = &ward.tables.addresses[&Address::v4([10, 1, 0, 1])];
    assert!(router.is_router());
    assert_eq!(router.zone, 0);
}

#[test]
fn all_by_which_the_router_takes_packets_is_the_routers() {
    let list = |policy: &mut Policy| {
        policy.devices.push(Device {
            name: "inside".to_owned(),
            zone: "pumps".to_owned(),
            addresses: vec!["10.1.9.9".to_owned(), "10.1.0.255".to_owned()],
            macs: vec!["02:00:00:00:09:09".to_owned()],
            ..Device::default()
        });
        policy.rules[0].to.push("cidr:10.1.9.128/25".to_owned());
    };
    let ward = Ward::new(list, &[]);
    let taken = ["10.1.0.255/32", "10.1.9.0/24", "2001:db8::/128"];
    let mut inventory = ward.inventory.clone();
    inventory.taken = taken.map(|net| net.parse().unwrap()).into();
    let tables = ward.compiled(&inventory);
    let end = |address: &str| {
        let address = Address::from(address.parse::<std::net::IpAddr>().unwrap());
        let around = || networks::around((address, 128), |it| tables.prefixes.get(&it));
        tables.addresses.get(&address).or_else(around).copied()
    };
    let router = end("10.1.0.1");
    assert!(router.is_some_and(|it| it.is_router()));
    for address in [
        "10.1.0.255",
        "10.1.9.1",
        "10.1.9.9",
        "10.1.9.200",
        "2001:db8::",
    ] {
        assert_eq!(end(address), router, "{address}");
    }
    for address in ["10.1.0.254", "10.1.10.1", "2001:db8::1"] {
        assert_ne!(end(address), router, "{address}");
    }
    // The device keeps its MAC, and no address of the router's with it.
    let mac = tables.macs[&mac_key(0, 0x0200_0000_0909)];
    assert_eq!(mac.address, Address::default());
}

#[test]
fn a_network_is_connected_where_the_router_reaches_it_through_guarded_ports() {
    let ward = Ward::new(|_| (), &[]);
    let mut inventory = ward.inventory.clone();
    inventory.connected = [
        (LAN1, "10.1.7.0/24"),
        (BRIDGE, "10.1.8.0/24"),
        (UPLINK, "10.1.9.0/24"),
        (LAN1, "10.1.0.0/16"),
        (LAN2, "198.51.100.0/24"),
    ]
    .map(|(index, net)| (index, net.parse().unwrap()))
    .into();
    let connected = |address: [u8; 4]| {
        let tables = ward.compiled(&inventory);
        let address = Address::v4(address);
        let end = networks::around((address, 128), |outer| tables.prefixes.get(&outer).copied());
        end.map(|end| (end.zone, end.flags & End::CONNECTED != 0))
    };
    let pumps = ward.zone("pumps") as u16;
    assert_eq!(connected([10, 1, 7, 9]), Some((pumps, true)));
    assert_eq!(connected([10, 1, 8, 9]), Some((pumps, true)));
    assert_eq!(connected([198, 51, 100, 9]), Some((0, true)));
    assert!(connected([203, 0, 113, 9]).is_none_or(|(_, connected)| !connected));
    // A network inside another may be somewhere else.
    assert_eq!(connected([10, 1, 9, 9]), Some((pumps, false)));
}

#[test]
fn the_macs_of_interfaces_are_the_routers_unless_a_device_lists_them() {
    let ward = Ward::new(|_| (), &[]);
    let mut inventory = ward.inventory.clone();
    let (own, permanent) = (Owner([2, 0, 0, 0, 0xff, 1]), Owner([2, 0, 0, 0, 0xff, 2]));
    let (shared, group) = (Owner([2, 0, 0, 0, 1, 1]), Owner([3, 0, 0, 0, 0, 1]));
    for (index, mac) in [
        (LAN1, own),
        (LAN2, shared),
        (BRIDGE, group),
        (UPLINK, Owner([0; 6])),
    ] {
        inventory.links.get_mut(&index).unwrap().mac = Some(mac);
    }
    inventory.links.get_mut(&UPLINK).unwrap().permanent = Some(permanent);
    // The MAC of a macvtap is that of the virtual machine behind it.
    let guests = Link {
        number: 30,
        ifindex: 30,
        name: "macvtap0".to_owned(),
        mac: Some(Owner([2, 0, 0, 0, 0xff, 3])),
        kind: Some("macvtap".to_owned()),
        ..inventory.links[&LAN1].clone()
    };
    inventory.links.insert(guests.number, guests);
    let tables = ward.compiled(&inventory);
    let entry = |mac: &Owner| tables.macs.get(&mac_key(0, mac_number(mac)));
    for mac in [own, permanent] {
        assert!(entry(&mac).is_some_and(|it| it.device == ROUTER));
    }
    let listed = entry(&shared).unwrap();
    assert_eq!(listed.device, ward.device("pump"));
    let flags = End::GUARDED | End::LEARNS_V6 | Mac::ROUTERS;
    assert_eq!(listed.flags, flags);
    assert_eq!(tables.macs.len(), ward.tables.macs.len() + 2);
}

#[test]
fn macs_beyond_the_room_are_not_the_routers_but_those_of_ports_are() {
    let ward = Ward::new(|_| (), &[]);
    let mut inventory = ward.inventory.clone();
    let numbered = |n: u32| {
        let [_, a, b, c] = n.to_be_bytes();
        Owner([2, 1, 0, a, b, c])
    };
    let link = inventory.links[&UPLINK].clone();
    for index in 0..5000 {
        // Indices on both sides of the ports'.
        let index = if index < 10 { index + 1 } else { index + 1000 };
        let (name, mac) = (format!("veth{index}"), Some(numbered(index)));
        inventory.links.insert(
            index,
            Link {
                number: index,
                ifindex: index,
                name,
                mac,
                ..link.clone()
            },
        );
    }
    let port = Owner([2, 0, 0, 0, 0xff, 1]);
    inventory.links.get_mut(&LAN2).unwrap().mac = Some(port);
    let tables = ward.compiled(&inventory);
    assert_eq!(tables.macs.len(), ward.tables.macs.len() + ROUTER_MACS);
    assert!(tables.macs.contains_key(&mac_key(0, mac_number(&port))));
}

#[test]
fn who_lists_no_address_of_a_family_is_found_by_number_and_learns() {
    let learns = |learn: Option<bool>| {
        let ward = Ward::new(|policy| policy.devices[0].learn = learn, &[]);
        ["pump", "visitor"].map(|name| {
            let number = ward.device(name);
            let known = ward.tables.devices.get(&number);
            let mut macs = ward.tables.macs.values();
            let mac = macs.find(|mac| mac.device == number);
            let flags = mac.map_or(0, |mac| mac.flags & End::LEARNS);
            assert_eq!(known.map_or(0, |it| it.flags & End::LEARNS), flags);
            flags
        })
    };
    assert_eq!(learns(None), [End::LEARNS_V6, End::LEARNS]);
    assert_eq!(learns(Some(false)), [0, End::LEARNS]);
}

#[test]
fn the_order_of_the_document_means_nothing() {
    let ward = Ward::new(|_| (), &[]);
    let turned = Ward::new(
        |policy| {
            policy.zones.reverse();
            policy.ports.reverse();
            policy.devices.reverse();
        },
        &[],
    );
    let again = compile(
        &turned.intent,
        &ward.inventory,
        &ward.ids,
        &Quarantine::default(),
        &ward.clock,
    );
    assert_eq!(again, ward.tables);
}
