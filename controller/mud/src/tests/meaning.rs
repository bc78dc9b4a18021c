//! Each abstraction of RFC 8520, both directions, and what holds an entry back.

use serde_json::{Value, json};

use super::*;
use crate::Trust;

#[test]
fn each_class_is_its_selectors() {
    for (mud, to) in [
        (
            json!({"local-networks": [null]}),
            &["zone:bulbs", "zone:servers"][..],
        ),
        (
            json!({"controller": "urn:example:desk"}),
            &["label:mud-controller=urn:example:desk"],
        ),
        (
            json!({"controller": "urn:ietf:params:mud:dns"}),
            &["label:mud-controller/1=urn:ietf:params:mud:dns"],
        ),
        (
            json!({"controller": "urn:ietf:params:mud:ntp"}),
            &["router"],
        ),
        (
            json!({"my-controller": [null]}),
            &["label:mud-controller=https://lights.example/bulb"],
        ),
        (
            json!({"manufacturer": "Other.Example"}),
            &["label:mud-maker=other.example"],
        ),
        (
            json!({"same-manufacturer": [null]}),
            &["label:mud-maker=lights.example"],
        ),
        (
            json!({"model": "https://other.example/lamp"}),
            &["label:mud=https://other.example/lamp"],
        ),
    ] {
        let told = imported(&[ace("web", tcp(mud.clone(), 443))], &[]);
        let rule = rule(&told, "web");
        assert_eq!(rule.from, ["label:mud=https://lights.example/bulb"]);
        assert_eq!(rule.to, to, "{mud}");
        assert_eq!(rule.services, ["tcp/443"]);
        assert_eq!(rule.ticket, URL);
        // The other way round.
        let inbound = json!({"ietf-mud:mud": mud, "ipv4": {"protocol": 6}, "tcp": {
            "ietf-mud:direction-initiated": "to-device", "destination-port": {"port": 22}}});
        let told = imported(&[], &[ace("ssh", inbound)]);
        let rule = super::rule(&told, "ssh");
        assert_eq!(rule.from, to, "{mud}");
        assert_eq!(rule.to, ["label:mud=https://lights.example/bulb"]);
    }
    let device = &imported(&[], &[]).put.devices[0];
    assert_eq!(device.labels["mud"], URL);
    assert_eq!(device.labels["mud-maker"], "lights.example");
}

#[test]
fn who_is_not_here_is_told_and_nobody_else_is_meant() {
    for (mud, class) in [
        (
            json!({"controller": "urn:example:nobody"}),
            "controller urn:example:nobody",
        ),
        (
            json!({"manufacturer": "absent.example"}),
            "manufacturer absent.example",
        ),
        (
            json!({"model": "https://other.example/x"}),
            "model https://other.example/x",
        ),
    ] {
        let told = imported(&[ace("web", tcp(mud, 443))], &[]);
        assert_eq!(became(&told, "web").0, Outcome::Held);
        assert!(
            told.unresolved.iter().any(|it| it == class),
            "{:?}",
            told.unresolved
        );
        let only_defaults = |it: &Rule| it.name.contains(".default-");
        assert!(told.put.rules.iter().all(only_defaults));
    }
}

#[test]
fn answers_make_no_rule_of_their_own() {
    let from = |tcp: Value| json!({"ietf-mud:mud": {"local-networks": [null]}, "ipv4": {"protocol": 6}, "tcp": tcp});
    let port = json!({"operator": "eq", "port": 80});
    let told = imported(
        &[
            ace("out", from(json!({"destination-port": port}))),
            ace("in-answers", from(json!({"source-port": {"port": 22}}))),
            ace("alone", from(json!({"source-port": {"port": 99}}))),
        ],
        &[
            ace("out-answers", from(json!({"source-port": port}))),
            ace("in", from(json!({"destination-port": {"port": 22}}))),
            ace(
                "told",
                from(json!({"source-port": port, "ietf-mud:direction-initiated": "from-device"})),
            ),
        ],
    );
    let out = rule(&told, "out").name.clone();
    assert_eq!(rule(&told, "out-answers").name, out);
    assert_eq!(rule(&told, "told").name, out);
    let inward = rule(&told, "in");
    assert_eq!(
        (&inward.services[..], inward.from.len()),
        (&["tcp/22".to_owned()][..], 2)
    );
    assert_eq!(rule(&told, "in-answers").name, inward.name);
    let (outcome, why) = became(&told, "alone");
    assert!(
        outcome == Outcome::Dropped && why.contains("limits the port"),
        "{why}"
    );
    assert_eq!(
        told.put
            .rules
            .iter()
            .filter(|it| !it.name.contains("default"))
            .count(),
        2
    );
}

#[test]
fn what_only_a_person_may_say_waits_for_one() {
    let addressed = |net: &str| json!({"ipv4": {"protocol": 6, "destination-ipv4-network": net}, "tcp": {"destination-port": {"port": 80}}});
    let inward = json!({"ietf-mud:mud": {"local-networks": [null]}, "ipv4": {"protocol": 6},
        "tcp": {"destination-port": {"port": 23}}});
    let file = file(
        &[
            ace("address", addressed("192.0.2.7/32")),
            ace("all", json!({"ipv4": {"protocol": 17}})),
        ],
        &[ace("telnet", inward)],
    );
    let told = imported_as(&file, false).unwrap();
    assert_eq!(
        (told.trust, told.trust.suffices()),
        (Trust::Unsigned, false)
    );
    for name in ["address", "all", "telnet"] {
        let (outcome, why) = became(&told, name);
        assert!(
            outcome == Outcome::Held && why.contains("--approve"),
            "{why}"
        );
    }
    let told = imported_as(&file, true).unwrap();
    assert_eq!(told.trust, Trust::Approved);
    assert_eq!(rule(&told, "address").to, ["cidr:192.0.2.7/32"]);
    assert_eq!(rule(&told, "all").to, ["cidr:0.0.0.0/0"]);
    assert_eq!(
        rule(&told, "telnet").to,
        ["label:mud=https://lights.example/bulb"]
    );
}

#[test]
fn local_addresses_are_those_of_local_zones() {
    let at = |net: &str| {
        json!({"ietf-mud:mud": {"local-networks": [null]}, "ipv4": {"protocol": 17, "destination-ipv4-network": net},
        "udp": {"destination-port": {"port": 5353}}})
    };
    for (net, to) in [
        ("10.1.7.0/24", &["cidr:10.1.7.0/24"][..]),
        ("10.0.0.0/8", &["cidr:10.1.0.0/16", "cidr:10.2.0.0/16"]),
        ("224.0.0.251/32", &["cidr:224.0.0.251/32"]),
        ("239.255.255.250/32", &["cidr:239.255.255.250/32"]),
        ("255.255.255.255/32", &["cidr:255.255.255.255/32"]),
        ("10.3.0.7/32", &[]),
        ("192.0.2.7/32", &[]),
        ("224.0.1.1/32", &[]),
    ] {
        let told = imported_as(&file(&[ace("x", at(net))], &[]), false).unwrap();
        if to.is_empty() {
            assert_eq!(became(&told, "x").0, Outcome::Held, "{net}");
        } else {
            assert_eq!(rule(&told, "x").to, to, "{net}");
        }
    }
}

#[test]
fn ports_and_types_are_what_they_say() {
    let local = json!({"local-networks": [null]});
    let udp = |port: Value| json!({"ietf-mud:mud": local, "ipv4": {"protocol": 17}, "udp": {"destination-port": port}});
    let icmp = |icmp: Value| json!({"ietf-mud:mud": local, "ipv4": {"protocol": 1}, "icmp": icmp});
    for (matches, services) in [
        (udp(json!({"port": 7})), &["udp/7"][..]),
        (udp(json!({"operator": "lte", "port": 7})), &["udp/0-7"]),
        (udp(json!({"operator": "gte", "port": 7})), &["udp/7-65535"]),
        (
            udp(json!({"operator": "neq", "port": 7})),
            &["udp/0-6", "udp/8-65535"],
        ),
        (udp(json!({"operator": "neq", "port": 0})), &["udp/1-65535"]),
        (udp(json!({"lower-port": 7, "upper-port": 9})), &["udp/7-9"]),
        (icmp(json!({"type": 8})), &["icmp/8"]),
        (icmp(json!({"type": 8, "code": 0})), &["icmp/8/0"]),
        (
            json!({"ietf-mud:mud": local}),
            &["tcp/*", "udp/*", "icmp/*"],
        ),
        (
            json!({"ietf-mud:mud": local, "ipv4": {"protocol": 47}}),
            &["proto/47"],
        ),
    ] {
        let told = imported(&[ace("x", matches.clone())], &[]);
        assert_eq!(rule(&told, "x").services, services, "{matches}");
    }
    let told = imported(
        &[
            ace("ping", icmp(json!({"type": 8, "code": 0}))),
            ace("gone", icmp(json!({"type": 3, "code": 1}))),
        ],
        &[
            ace("pong", icmp(json!({"type": 0, "code": 0}))),
            ace("turn", icmp(json!({"type": 5}))),
        ],
    );
    assert_eq!(rule(&told, "pong").name, rule(&told, "ping").name);
    assert_eq!(told.aces[1].outcome, Outcome::Imported);
    assert!(told.aces[1].rules.is_empty());
    assert_eq!(became(&told, "turn").0, Outcome::Dropped);
}

#[test]
fn an_earlier_drop_holds_what_it_takes_from() {
    let local = |port: u16| tcp(json!({"local-networks": [null]}), port);
    let all = json!({"ipv4": {"protocol": 6}});
    let told = imported(
        &[
            ace("before", local(80)),
            drops("no", local(443)),
            ace("whole", local(443)),
            ace(
                "part",
                json!({"ietf-mud:mud": {"local-networks": [null]}, "ipv4": {"protocol": 6}}),
            ),
            ace("other", local(22)),
            drops("nothing-more", all),
            ace("after", local(23)),
        ],
        &[],
    );
    let outcomes: Vec<Outcome> = told.aces.iter().map(|it| it.outcome).collect();
    use Outcome::{Dropped, Held, Imported};
    assert_eq!(
        outcomes,
        [Imported, Imported, Held, Held, Imported, Imported, Dropped]
    );
    // A drop whose conditions are not understood may be of anything.
    let told = imported(&[drops("odd", json!({"x": 1})), ace("web", local(80))], &[]);
    assert_eq!(became(&told, "web").0, Held);
}

#[test]
fn dns_and_ntp_go_without_saying_unless_they_are_dropped() {
    let told = imported(&[], &[]);
    let of = |name: &str| {
        let rule = told
            .put
            .rules
            .iter()
            .find(|it| it.name.ends_with(name))
            .unwrap();
        (rule.to[0].clone(), rule.services.clone())
    };
    let dns = ["udp/53", "tcp/53"].map(str::to_owned).to_vec();
    assert_eq!(
        of("default-dns"),
        (
            "label:mud-controller/1=urn:ietf:params:mud:dns".to_owned(),
            dns
        )
    );
    assert_eq!(
        of("default-ntp"),
        ("router".to_owned(), vec!["udp/123".to_owned()])
    );
    let no_dns = drops(
        "no-dns",
        json!({"ipv4": {"protocol": 17}, "udp": {"destination-port": {"port": 53}}}),
    );
    let told = imported(&[no_dns], &[]);
    assert_eq!(told.defaults[0].outcome, Outcome::Dropped);
    assert_eq!(told.defaults[1].outcome, Outcome::Imported);
}

#[test]
fn a_later_version_replaces_the_rules_of_the_one_before() {
    let first = imported(
        &[
            ace("a", tcp(json!({"local-networks": [null]}), 80)),
            ace("b", tcp(json!({"local-networks": [null]}), 81)),
        ],
        &[],
    );
    let mut document = site();
    document.devices[0] = first.put.devices[0].clone();
    document.rules = first.put.rules.clone();
    document.rules.push(Rule {
        name: "ours".to_owned(),
        ..Rule::default()
    });
    let second = file(&[ace("b", tcp(json!({"local-networks": [null]}), 82))], &[]);
    let subject = Subject::Label("model=b7".to_owned());
    let again = |document: &Policy| {
        import(&Request {
            file: second.to_string().as_bytes(),
            signature: &[],
            anchors: &Anchors::default(),
            now: Timestamp::UNIX_EPOCH,
            subject: Some(&subject),
            is_approved: true,
            document,
            router_is: &[],
        })
    };
    let told = again(&document).unwrap();
    let gone = |name: &str| {
        format!(
            "rule/{}",
            first
                .put
                .rules
                .iter()
                .find(|it| it.name.ends_with(name))
                .unwrap()
                .name
        )
    };
    assert_eq!(told.delete, [gone(".a"), gone("default-ntp")]);
    assert_eq!(rule(&told, "b").from, ["label:model=b7"]);
    assert!(
        told.notices
            .iter()
            .any(|it| it.contains("were for label:mud=")),
        "{:?}",
        told.notices
    );
    // A rule of somebody else is not overwritten.
    let own = rule(&told, "b").name.clone();
    document.rules = vec![Rule {
        name: own.clone(),
        ..Rule::default()
    }];
    assert_eq!(again(&document).unwrap_err().path, format!("rule/{own}"));
}
