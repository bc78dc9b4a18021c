//! Explanations that depend on more than addresses and rules: on where a device was seen, on questions
//! to groups, on what a message is.

use super::*;

/// Nobody has learned anything, and whoever was seen was last seen at this interface.
struct SeenAt(u32);

impl Learned for SeenAt {
    fn device(&self, _address: Address) -> Option<u32> {
        None
    }

    fn addresses(&self, _device: u32) -> Vec<IpAddr> {
        Vec::new()
    }

    fn seen(&self, _device: u32) -> Option<u32> {
        Some(self.0)
    }

    fn learned_at(&self, _address: Address) -> Option<u32> {
        Some(self.0)
    }

    fn names(&self, _address: Address) -> Vec<(u32, u32)> {
        Vec::new()
    }

    fn named(&self, _selector: u32) -> Vec<(IpAddr, u32)> {
        Vec::new()
    }
}

#[test]
fn a_device_is_judged_at_its_port_or_where_it_was_last_seen() {
    let snapshot = snapshot();
    let number = |port: &str| snapshot.inventory.link(port).unwrap().number;
    for (from, seen, port) in [
        // Two ports carry its zone, and trunk comes after cam1 in the alphabet.
        ("device:camera-1", "trunk", "entering trunk on VLAN 20"),
        ("device:camera-1", "cam1", "entering cam1"),
        ("device:pump-2", "pump2", "entering pump2"),
        // It may be on pump1 only.
        ("device:pump-1", "pump2", "entering pump1"),
        // Where its zone is not, it is seen no longer.
        ("device:pump-2", "cam1", "entering pump1"),
        ("device:pump-2", "up", "entering pump1"),
        // Unlisted, with an address that was learned.
        ("10.20.3.5", "trunk", "entering trunk on VLAN 30"),
    ] {
        let question = Question {
            from: from.into(),
            to: "device:ehr".into(),
            service: "hl7".into(),
            ..Question::default()
        };
        let answer = explain(&snapshot, &question, &SeenAt(number(seen)), 1).unwrap();
        assert!(answer.packet.contains(port), "{}", answer.packet);
    }
    // The same where a packet leaves.
    let question = Question {
        from: "device:ehr".into(),
        to: "device:pump-2".into(),
        service: "tcp/22".into(),
        ..Question::default()
    };
    let answer = explain(&snapshot, &question, &SeenAt(number("pump2")), 1).unwrap();
    let leaves = answer.packet.ends_with("leaving through pump2");
    assert!(answer.passes() && leaves, "{}", answer.packet);
}

#[test]
fn messages_about_membership_pass_to_their_group_only() {
    let rules = "  - {name: group, from: [zone:pumps], to: [any, router], services: [proto/2,                  \"icmpv6/*\", udp/1], action: allow}\n";
    let snapshot = snapshot_of(&(POLICY.to_owned() + rules), BTreeSet::new());
    let note = "; messages about membership pass as control, to their group only, and by no rule";
    for (from, to, service, reason) in [
        ("device:pump-1", "239.1.1.1", "proto/2", Reason::Control),
        ("device:pump-1", "10.20.2.21", "proto/2", Reason::NoRule),
        ("device:pump-1", "router", "proto/2", Reason::NoRule),
        ("fd20:0:0:1::11", "ff15::1", "icmpv6/131", Reason::Control),
        ("fd20:0:0:1::11", "ff02::16", "icmpv6/143", Reason::Control),
        ("fd20:0:0:1::11", "device:ehr", "icmpv6/143", Reason::NoRule),
        // Only a router asks who is in a group.
        ("fd20:0:0:1::11", "ff02::1", "icmpv6/130", Reason::RogueRa),
        // IGMP is of IPv4, and other protocols obey rules.
        ("fd20:0:0:1::11", "device:ehr", "proto/2", Reason::Rule),
        ("device:pump-1", "10.20.2.21", "udp/1", Reason::Rule),
    ] {
        let question = Question {
            from: from.into(),
            to: to.into(),
            service: service.into(),
            ..Question::default()
        };
        let answer = explain(&snapshot, &question, &[], 1).unwrap();
        assert_eq!(answer.reason, reason, "{}", answer.packet);
        let told = answer.packet.ends_with(note);
        assert_eq!(told, reason == Reason::NoRule, "{}", answer.packet);
    }
}

#[test]
fn ipv4_in_ipv6_is_judged_as_what_it_is() {
    for (from, to, reason) in [
        ("::ffff:8.8.8.8", "fd20:0:0:1::11", Reason::SpoofedSource),
        ("::ffff:10.20.1.11", "fd20:0:0:9::10", Reason::SpoofedSource),
        ("fd20:0:0:1::11", "::ffff:10.20.9.10", Reason::Malformed),
    ] {
        let answer = ask(from, to, "tcp/443").unwrap();
        assert_eq!(answer.reason, reason, "{}", answer.packet);
        let note = "which is IPv4 in IPv6: ask about ";
        assert!(answer.packet.contains(note), "{}", answer.packet);
    }
    // Between IPv4 and IPv6 there is no packet.
    for (from, to, path, right) in [
        ("::ffff:8.8.8.8", "10.20.1.11", "from", "write 8.8.8.8"),
        ("10.20.1.11", "::ffff:8.8.8.8", "to", "write 8.8.8.8"),
    ] {
        let problem = problem_of(ask(from, to, "tcp/443"));
        assert_eq!(problem.path, path, "{problem}");
        assert!(problem.message.ends_with(right), "{problem}");
    }
}

#[test]
fn an_answer_to_a_question_says_which_rule_lets_it_pass() {
    let rules = "  - {name: search, from: [zone:cameras], to: [\"cidr:239.255.255.250/32\",                  \"cidr:ff02::c/128\"], services: [udp/1900], answers_from: [zone:pumps],                  action: allow}
  - {name: discover, from: [router], to: [zone:pumps], services: [udp/137], answers_from:                  [zone:pumps], action: allow}
  - {name: scan, from: [zone:lab], to: [any], services: [udp/9], answers_from: [zone:lab],                  action: allow}
  - {name: never, from: [device:pump-2], to: [device:camera-2], services: [udp/*], action: deny}\n";
    let snapshot = snapshot_of(&(POLICY.to_owned() + rules), BTreeSet::new());
    let answers = |who: &str, rule: &str| {
        format!(
            "; if {who} has asked by {rule} from port 40000 in the last 10 s, allow: rule by {rule}"
        )
    };
    let search = Some(answers("10.20.2.21", "search"));
    for (from, to, service, told) in [
        ("device:pump-1", "device:camera-1", "udp/40000", search),
        (
            "device:pump-1",
            "router",
            "udp/40000",
            Some(answers("10.20.1.1", "discover")),
        ),
        (
            "10.20.3.5",
            "10.20.3.6",
            "udp/40000",
            Some(answers("10.20.3.6", "scan")),
        ),
        ("device:pump-1", "device:camera-1", "tcp/40000", None),
        ("device:ehr", "device:camera-1", "udp/40000", None),
        ("device:camera-1", "device:pump-1", "udp/40000", None),
        ("device:pump-2", "device:camera-2", "udp/40000", None),
    ] {
        let question = Question {
            from: from.into(),
            to: to.into(),
            service: service.into(),
            ..Question::default()
        };
        let answer = explain(&snapshot, &question, &[], 1).unwrap();
        let passes = answer.passes();
        assert_eq!(
            passes,
            answer.reason == Reason::Observed,
            "{}",
            answer.packet
        );
        let note = answer.packet.find("; if ").map(|at| &answer.packet[at..]);
        assert_eq!(note, told.as_deref(), "{}", answer.packet);
    }
}

/// Resolvers have given these addresses for each name, until a tick.
struct Told(&'static [(&'static str, u32)]);

impl Learned for Told {
    fn device(&self, _address: Address) -> Option<u32> {
        None
    }

    fn addresses(&self, _device: u32) -> Vec<IpAddr> {
        Vec::new()
    }

    fn seen(&self, _device: u32) -> Option<u32> {
        None
    }

    fn learned_at(&self, _address: Address) -> Option<u32> {
        None
    }

    fn names(&self, address: Address) -> Vec<(u32, u32)> {
        let told = self.named(1).into_iter();
        let told = told.filter(|(it, _)| Address::from(*it) == address);
        told.map(|(_, until)| (1, until)).collect()
    }

    fn named(&self, selector: u32) -> Vec<(IpAddr, u32)> {
        let told = self.0.iter().filter(|_| selector == 1);
        told.map(|(address, until)| (address.parse().unwrap(), *until))
            .collect()
    }
}

#[test]
fn a_name_is_asked_about_by_what_resolvers_have_told() {
    let rules = "  - {name: updates, from: [zone:pumps], to: ['name:updates.vendor.example'], services: [tcp/8443], action: allow}\n";
    let snapshot = snapshot_of(&(POLICY.to_owned() + rules), BTreeSet::new());
    let ask = |to: &str, told: &Told| {
        let question = Question {
            from: "device:pump-1".into(),
            to: to.into(),
            service: "tcp/8443".into(),
            ..Question::default()
        };
        explain(&snapshot, &question, told, 10).map_err(|it| it[0].to_string())
    };
    let told = Told(&[("198.51.100.9", 9), ("198.51.100.7", 11)]);
    for to in [
        "name:Updates.vendor.example",
        "updates.vendor.example",
        "198.51.100.7",
    ] {
        let answer = ask(to, &told).unwrap();
        assert_eq!((answer.reason, &*answer.rule), (Reason::Rule, "updates"));
        let note = "; 198.51.100.7 is what resolvers say of name:updates.vendor.example";
        assert!(answer.packet.ends_with(note), "{}", answer.packet);
    }
    let over = ask("198.51.100.9", &told).unwrap();
    assert_eq!(over.reason, Reason::NoRule);
    // A device's address is no name's.
    let inside = ask("name:updates.vendor.example", &Told(&[("10.20.9.10", 99)])).unwrap();
    assert_eq!(inside.reason, Reason::NoRule);
    assert!(
        inside.packet.contains("counts for nothing"),
        "{}",
        inside.packet
    );
    let unseen = ask("updates.vendor.example", &Told(&[("198.51.100.9", 9)])).unwrap_err();
    assert!(
        unseen.contains("no answer for name:updates.vendor.example was seen"),
        "{unseen}"
    );
    let unknown = ask("other.example", &told).unwrap_err();
    assert!(
        unknown.contains("no rule has name:other.example"),
        "{unknown}"
    );
}
