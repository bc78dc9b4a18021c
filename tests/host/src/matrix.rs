//! The packet matrix: verdicts on every kind of packet that is used to bypass filters.
//!
//! One row is a frame or a few, and the verdict on each under each setting that matters. The host
//! must give these verdicts, and so must XDP and TC, which the suite runs. `docs/packet-matrix.md`
//! is rendered from the same rows.

mod answers;
pub mod case;
mod control;
mod cut;
mod document;
mod fragments;
mod groups;
mod hosted;
mod internet;
mod ipv4;
mod ipv6;
mod leases;
mod leaving;
mod link;
mod link_local;
mod names;
mod nat;
pub mod network;
mod observe;
mod place;
mod policy;
mod router;
pub mod run;
mod state;
mod told;
mod transport;
mod tunnels;

use self::case::{Case, Table};

/// Rows that belong together.
struct Topic {
    title: &'static str,
    about: &'static str,
    cases: Vec<Case>,
}

fn topics() -> Vec<Topic> {
    let topic = |title, about, rows: fn(&mut Table)| {
        let mut table = Table::default();
        rows(&mut table);
        let cases = table.cases;
        Topic {
            title,
            about,
            cases,
        }
    };
    vec![
        topic(
            "The form of IPv4",
            "The header, its lengths, its options. A source route is dropped in every setting.",
            ipv4::rows,
        ),
        topic(
            "The form of IPv6",
            "The header, its length, its addresses, and the chain of extension headers. A routing header is dropped in \
             every setting.",
            ipv6::rows,
        ),
        topic(
            "The form of TCP, UDP, ICMP and the rest",
            "The header must be there whole, and what it says of its length must be true.",
            transport::rows,
        ),
        topic(
            "Frames, VLANs, EtherTypes",
            "At most one 802.1Q tag, of a VLAN that the port has. Of what is not IP, only ARP, EAPOL and the zone's \
             `ethertypes`.",
            link::rows,
        ),
        topic(
            "Place and spoofing",
            "Port, VLAN, MAC and address must be those of one device; quarantine comes next.",
            place::rows,
        ),
        topic(
            "Link-local addresses",
            "One that is made of a listed MAC is that device's, any other is the first comer's on its link. Rules hold \
             for them as for others.",
            link_local::rows,
        ),
        topic(
            "ARP",
            "A device may only claim its own addresses, at its own MAC.",
            control::arp,
        ),
        topic(
            "Neighbour discovery, routers, listeners",
            "The same for IPv6. What only a router says enters only through a port with `router: true`.",
            control::discovery,
        ),
        topic(
            "DHCP",
            "A client may ask for itself; what a server says enters only through a port with `dhcp_server: true`.",
            control::dhcp,
        ),
        topic(
            "DHCP leases",
            "What a server gives to a client that has asked at this port is the client's with its next packet, also when \
             another had it by a lease. What its client gives back, or the server refuses, is free.",
            leases::rows,
        ),
        topic(
            "Ports in quarantine",
            "Whoever is behind the port is as a device in quarantine; who has no listed MAC sends nothing at all. No fragments \
             and no ICMP errors pass, and mode observe spares nothing.",
            cut::rows,
        ),
        topic(
            "The budget of control",
            "Of what a device sends without a rule, 300 packets pass in a second, or 10 in quarantine.",
            control::budget,
        ),
        topic(
            "Fragments",
            "All are dropped unless the zone says `fragments: allow`. Then the first must hold all that policy has to \
             see, and the others follow it in order, without gap or overlap, from the same place, within five seconds.",
            fragments::rows,
        ),
        topic(
            "Fragments that leave",
            "From the uplink they are judged by the zone of the port they leave through.",
            fragments::leaving,
        ),
        topic(
            "State",
            "Only a packet that may open a flow opens one, and only from the end that a rule names.",
            state::rows,
        ),
        topic(
            "ICMP errors",
            "They pass when they quote a packet of a live flow, to the one who sent it. Through a guarded port only from \
             whom that packet was for, unless the port has `router: true`.",
            state::errors,
        ),
        topic(
            "Groups and broadcasts",
            "Where they enter, a rule must allow the group.",
            groups::rows,
        ),
        topic(
            "Groups and broadcasts that leave",
            "One frame leaves through many ports, and each asks for its own zone.",
            groups::leaving,
        ),
        topic(
            "Answers to groups",
            "Who has asked a group by a rule with `answers_from` is answered by UDP at the address and port that asked, \
             for ten seconds.",
            answers::rows,
        ),
        topic(
            "The router's other addresses",
            "The router takes packets by the broadcast and the anycast address of its subnets, and by local prefixes: \
             `10.20.1.255`, `10.20.2.255`, `fd20:0:0:1::`, `fd20:0:0:2::`, `10.20.9.200/30`, `fd20:0:0:9::200/120`. Where they \
             enter, a rule must allow the router; where a broadcast leaves, the zone.",
            router::rows,
        ),
        topic(
            "Tunnels",
            "What carries packets in packets is allowed only by a rule that names it. A rule for all services and a \
             rule for `udp/*` do not.",
            tunnels::rows,
        ),
        topic(
            "Policy",
            "Any matching deny wins, else any matching allow, else the packet is dropped.",
            policy::rows,
        ),
        topic(
            "Internet",
            "`internet` means what IANA's registries call globally reachable unicast, and what is in no zone; what a NAT64 \
             makes of an IPv4 address is what that one is.",
            internet::rows,
        ),
        topic(
            "Names",
            "A rule with `name:` allows the addresses that a device's resolver has given it: the router, or `media`, which the \
             policy names. Messages of DNS are at port 53; only an answer that was asked for counts.",
            names::rows,
        ),
        topic(
            "Mode observe",
            "What would be dropped passes, and is reported with its reason, when the port's zone observes and so does \
             every other zone with ports that the packet touches. What is in quarantine is dropped in any mode.",
            observe::rows,
        ),
        topic(
            "What leaves",
            "What comes from the uplink is judged where it leaves; so is what the router itself sends. What entered \
             through a guarded port was judged and counted there: those rows say the reason that lets it leave.",
            leaving::rows,
        ),
        topic(
            "Containers and virtual machines above a port",
            "A frame that leaves comes from no interface of the router's, and its source MAC is not one of the router's: a \
             container or a virtual machine with a MAC of its own above the port (macvlan, macvtap) has sent it. It is judged as \
             if it entered there.",
            hosted::rows,
        ),
        topic(
            "What NAT has rewritten",
            "Where the router has NAT, its address from an interface that is not guarded is its own word. What a guarded \
             port has admitted needs no second permission when NAT has changed its source or its destination; a rule \
             that denies the new ends stays in force.",
            nat::rows,
        ),
    ]
}

/// The matrix as a page for people.
pub fn page() -> String {
    document::render(&topics())
}

/// All rows by topic, the order of the page.
pub fn cases() -> Vec<Case> {
    topics().into_iter().flat_map(|topic| topic.cases).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs, path::PathBuf};

    use super::*;

    #[test]
    fn the_host_says_what_the_rows_say() {
        let outcome = run::ask(&cases());
        assert!(outcome.asked > 0);
        outcome.insist();
    }

    #[test]
    fn rows_are_many_and_each_has_its_name() {
        let cases = cases();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert!(names.len() >= 300, "{} rows", names.len());
        let mut seen = BTreeSet::new();
        for case in &cases {
            assert!(seen.insert(case.to_string()), "two rows are called {case}");
            assert!(!case.said.is_empty(), "{case} has no verdict");
        }
    }

    /// The page in the repository; `cargo xtask matrix` names another place to write to.
    #[test]
    fn the_page_is_what_the_rows_say() {
        let page = page();
        if let Some(path) = env::var_os("WARDLINE_MATRIX_OUT") {
            fs::write(path, page).unwrap();
            return;
        }
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/packet-matrix.md");
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == page,
            "docs/packet-matrix.md is not what the rows say; `cargo xtask matrix` writes it"
        );
    }
}
