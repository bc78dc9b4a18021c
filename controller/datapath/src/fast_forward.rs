//! Finds out through which interfaces packets may be forwarded in the driver, and why not through
//! others: the daemon's part of fast-forward.
//!
//! No other part of the router sees packets that are forwarded in the driver. So none are where
//! something else handles forwarded packets: netfilter with rules for them (NAT is one), a qdisc
//! that shapes, a driver that can't send from XDP. This is checked whenever hooks are, every 30
//! seconds or sooner.

use std::{collections::BTreeMap, fs};

use wardline_ebpf::abi::{Forwarding, INTERFACES, Port};

use wardline_policy::{
    inventory::{Inventory, Link},
    tables::Tables,
    words::mac::mac_number,
};

use crate::{netlink, offload};

/// Qdiscs that packets may bypass without losing anything.
const PLAIN: [&str; 6] = ["noqueue", "mq", "pfifo_fast", "fq_codel", "fq", "pfifo"];

/// The interfaces that may forward, and those that may not.
#[derive(Debug, Default)]
pub struct Roads {
    /// By number.
    pub open: BTreeMap<u32, Forwarding>,
    /// Why a port that asks for fast-forward does not have it, by number.
    pub refused: BTreeMap<u32, String>,
}

/// Finds out which interfaces may forward; `wanted` are the guarded ports that ask for it, with
/// whether XDP judges them.
pub fn roads(wanted: &BTreeMap<u32, bool>, inventory: &Inventory, tables: &Tables) -> Roads {
    let mut roads = Roads::default();
    if wanted.is_empty() {
        return roads;
    }
    let qdiscs = netlink::root_qdiscs();
    let in_the_way = in_the_way().or(match &qdiscs {
        Ok(_) => None,
        Err(error) => Some(format!("whether qdiscs shape is not known: {error}")),
    });
    let qdiscs = qdiscs.unwrap_or_default();
    for link in inventory.links.values() {
        let asks = wanted.get(&link.number);
        let guards = |entry: &Port| entry.flags & (Port::GUARDED | Port::ABOVE) != 0;
        let guarded = tables.ports.get(&link.number).is_some_and(guards);
        if link.number >= INTERFACES || guarded && asks.is_none() {
            continue;
        }
        let obstacle = in_the_way.clone().or_else(|| unsuited(link, asks.copied()));
        let obstacle = obstacle.or_else(|| cannot_send(link, qdiscs.get(&link.ifindex)));
        match (obstacle, link.mac) {
            (None, Some(mac)) => {
                let enters = if asks.is_some() {
                    Forwarding::ENTERS
                } else {
                    0
                };
                // The far end of a virtual interface may be on this machine.
                let partial = if link.kind.is_some() {
                    Forwarding::PARTIAL
                } else {
                    0
                };
                let entry = Forwarding {
                    mac: mac_number(&mac),
                    flags: enters | partial | Forwarding::LEAVES,
                    ifindex: link.ifindex,
                };
                roads.open.insert(link.number, entry);
            }
            (why, _) if asks.is_some() => {
                let why = why.unwrap_or_else(|| "it has no MAC".to_owned());
                roads.refused.insert(link.number, why);
            }
            _ => {}
        }
    }
    roads
}

/// The part of the router that handles forwarded packets and would miss them, if there is one.
fn in_the_way() -> Option<String> {
    match netlink::chains() {
        Ok(chains) => {
            if let Some(chain) = chains.first() {
                return Some(format!(
                    "the nftables chain {chain} would not see the packets"
                ));
            }
        }
        Err(error) => return Some(format!("whether nftables has rules is not known: {error}")),
    }
    ["ip_tables_names", "ip6_tables_names"]
        .into_iter()
        .find_map(|file| {
            // The file is missing where iptables is not loaded.
            let tables = fs::read_to_string(format!("/proc/thread-self/net/{file}")).ok()?;
            let table = tables.lines().next()?;
            Some(format!(
                "the iptables table {table} would not see the packets"
            ))
        })
}

/// Why the kind of an interface, or what it does with VLAN tags, rules out fast-forward. `asks`:
/// packets are to enter through it, and whether XDP judges them.
fn unsuited(link: &Link, asks: Option<bool>) -> Option<String> {
    let kind = link.kind.as_deref();
    if asks == Some(false) {
        Some("it is not judged by XDP".to_owned())
    } else if link.controller.is_some() {
        Some("it is a port of a bridge or bond".to_owned())
    } else if !matches!(kind, None | Some("veth" | "tun")) {
        Some(format!("it is a {} interface", kind.unwrap_or_default()))
    } else if kind == Some("veth") {
        // Tags may be outside the frame there too, and no setting of this end changes that:
        // decision 0043.
        None
    } else {
        asks.and_then(|_| offload::tags_outside(link))
    }
}

/// Why frames can't be sent through an interface in its driver.
fn cannot_send(link: &Link, qdisc: Option<&String>) -> Option<String> {
    if let Some(qdisc) = qdisc.filter(|kind| !PLAIN.contains(&kind.as_str())) {
        return Some(format!("the qdisc {qdisc} would not see the packets"));
    }
    match netlink::sends_from_xdp(link.ifindex) {
        Ok(true) => None,
        Ok(false) => Some("its driver can't send from XDP, or its far end not take it".to_owned()),
        Err(error) => Some(format!(
            "whether its driver sends from XDP is not known: {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{observe::tests::in_a_namespace, offload::tests::link};

    #[test]
    fn a_tag_that_xdp_may_not_see_rules_it_out_for_what_enters() {
        in_a_namespace(async {
            let (connection, handle, _events) = rtnetlink::new_connection().expect("a socket");
            let task = tokio::spawn(connection);
            let pair = rtnetlink::LinkVeth::new("lan1", "far1").build();
            handle.link().add(pair).execute().await.expect("veth");
            // If it were hardware, it would take tags out of frames.
            let why = unsuited(&link(None), Some(true)).unwrap_or_default();
            assert!(why.contains("ethtool -K lan1 rxvlan off"), "{why}");
            // What leaves through it has no tag; and on a veth the far end has the say.
            assert_eq!(unsuited(&link(None), None), None);
            assert_eq!(unsuited(&link(Some("veth")), Some(true)), None);
            assert!(unsuited(&link(Some("veth")), Some(false)).is_some());
            for (feature, allowed) in [("rx-vlan-hw-parse", false), ("rx-vlan-stag-hw-parse", true)]
            {
                offload::tests::switch_off("lan1", feature).expect("a feature");
                assert_eq!(unsuited(&link(None), Some(true)).is_none(), allowed);
            }
            task.abort();
        });
    }
}
