//! Ports of a document that no interface has at present, and what an operator should hear of each.

use crate::{
    intent::{Intent, Port},
    inventory::Inventory,
};

/// Most interfaces that one warning names.
const NAMED: usize = 8;

/// The ports that no interface has.
pub fn absent_ports<'a>(
    intent: &'a Intent,
    inventory: &'a Inventory,
) -> impl Iterator<Item = &'a Port> {
    let has = |port: &Port| {
        let mut names = inventory.links.values().map(|link| &link.name);
        names.any(|name| port.may_be(name))
    };
    intent.ports.iter().filter(move |port| !has(port))
}

/// Warnings about the ports that no interface has: under which name the interface is there, which
/// name may have been meant, or which interfaces no port has.
pub fn absent(intent: &Intent, inventory: &Inventory) -> Vec<String> {
    let names = inventory.links.values().map(|link| link.name.as_str());
    let free: Vec<&str> = names
        .filter(|name| *name != "lo" && intent.port_for(name).is_none())
        .collect();
    let warning = |port: &Port| {
        let pattern = port.pattern.as_str();
        let other_name = inventory.alternatives.iter().find_map(|(name, number)| {
            let link = inventory.links.get(number)?;
            port.may_be(name).then_some((name, &link.name))
        });
        if let Some((alternative, name)) = other_name {
            return format!(
                "port {pattern}: {alternative} is an alternative name of interface {name}, and ports \
                 go by the name: write {name}"
            );
        }
        let meant = near(pattern, &free).filter(|_| port.pattern.is_exact());
        let more = match (meant, free.as_slice()) {
            (Some(name), _) => format!("; did you mean {name}?"),
            (None, []) => String::new(),
            (None, free) => format!("; no port has {}", listed(free)),
        };
        format!("port {pattern}: no such interface yet{more}")
    };
    absent_ports(intent, inventory).map(warning).collect()
}

/// The name that differs in one or two letters.
fn near<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(written, name);
    let nearest = names.iter().map(|name| (distance(name), *name)).min()?;
    let most = if written.len() > 4 { 2 } else { 1 };
    (nearest.0 <= most).then_some(nearest.1)
}

fn listed(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let text = names[..names.len() - more].join(", ");
    match more {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ward::{LAN1, Ward};

    fn told(interface: &str, change: impl FnOnce(&mut Inventory)) -> Vec<String> {
        let mut ward = Ward::new(
            |policy| policy.ports[0].interface = interface.to_owned(),
            &[],
        );
        change(&mut ward.inventory);
        absent(&ward.intent, &ward.inventory)
    }

    #[test]
    fn what_is_there_is_not_told() {
        for port in ["lan1", "lan*", "l?n1"] {
            assert_eq!(told(port, |_| {}), [""; 0], "{port}");
        }
        // Another port has the interface, but it is there.
        assert_eq!(told("lan*", |it| drop(it.links.remove(&LAN1))), [""; 0]);
    }

    #[test]
    fn a_port_without_an_interface_is_told_with_what_may_be_meant() {
        assert_eq!(
            told("lna1", |_| {}),
            ["port lna1: no such interface yet; did you mean lan1?"]
        );
        assert_eq!(
            told("eth7", |_| {}),
            ["port eth7: no such interface yet; no port has lan1, br0, uplink"]
        );
        // A glob has no name that it is near to, and the loopback is no port of one.
        assert_eq!(
            told("la*9", |it| it.links.clear()),
            [
                "port la*9: no such interface yet",
                "port lan2: no such interface yet"
            ]
        );
    }

    #[test]
    fn the_loopback_is_nobodys_glob() {
        let loopback = |inventory: &mut Inventory| {
            let mut link = inventory.links[&LAN1].clone();
            (link.number, link.name) = (1, "lo".to_owned());
            inventory.links.insert(1, link);
        };
        assert_eq!(
            told("lo*", loopback),
            ["port lo*: no such interface yet; no port has lan1, br0, uplink"]
        );
        assert_eq!(told("lo", loopback), [""; 0]);
    }

    #[test]
    fn an_alternative_name_is_told_with_the_name() {
        let named = |inventory: &mut Inventory| {
            inventory.alternatives.insert("enp1s0".to_owned(), LAN1);
        };
        for port in ["enp1s0", "enp*"] {
            let expected = format!(
                "port {port}: enp1s0 is an alternative name of interface lan1, and ports go by the \
                 name: write lan1"
            );
            assert_eq!(told(port, named), [expected]);
        }
    }

    #[test]
    fn what_is_named_is_bounded() {
        let many = |inventory: &mut Inventory| {
            for number in 100..200 {
                let mut link = inventory.links[&LAN1].clone();
                (link.number, link.name) = (number, format!("veth{number}"));
                inventory.links.insert(number, link);
            }
        };
        let told = told("eth7", many);
        assert!(
            told[0].ends_with("veth103, veth104 and 95 more"),
            "{told:?}"
        );
    }
}
