//! Random files: nothing panics, and no rule allows what no entry of the file accepts.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

/// An entry as this test reads it, beside the JSON that the product reads.
#[derive(Clone, Debug)]
struct Naive {
    from_device: bool,
    accepts: bool,
    peer: usize,
    protocol: u8,
    source: Option<(u16, u16)>,
    destination: Option<(u16, u16)>,
    initiated: Option<bool>,
    odd: bool,
}

/// Each other end, and the selectors that it may become.
const PEERS: [(&str, &[&str]); 5] = [
    ("local-networks", &["zone:bulbs", "zone:servers"]),
    (
        "my-controller",
        &["label:mud-controller=https://lights.example/bulb"],
    ),
    ("same-manufacturer", &["label:mud-maker=lights.example"]),
    ("network", &["cidr:10.2.0.7/32"]),
    ("", &["cidr:0.0.0.0/0"]),
];

impl Naive {
    fn json(&self, at: usize) -> Value {
        let mut matches = Map::new();
        let mut ip = json!({"protocol": self.protocol});
        match PEERS[self.peer].0 {
            "" => {}
            "network" if self.from_device => ip["destination-ipv4-network"] = json!("10.2.0.7/32"),
            "network" => ip["source-ipv4-network"] = json!("10.2.0.7/32"),
            name => drop(matches.insert("ietf-mud:mud".to_owned(), json!({name: [null]}))),
        }
        matches.insert("ipv4".to_owned(), ip);
        let mut ports = json!({});
        let range = |(lower, upper): (u16, u16)| json!({"lower-port": lower, "upper-port": upper});
        if let Some(it) = self.source {
            ports["source-port"] = range(it);
        }
        if let Some(it) = self.destination {
            ports["destination-port"] = range(it);
        }
        if let (Some(from), 6) = (self.initiated, self.protocol) {
            let word = if from { "from-device" } else { "to-device" };
            ports["ietf-mud:direction-initiated"] = json!(word);
        }
        if self.odd {
            ports["flags"] = json!("syn");
        }
        let name = if self.protocol == 6 { "tcp" } else { "udp" };
        matches.insert(name.to_owned(), ports);
        let name = format!("e{at}");
        let matches = Value::Object(matches);
        if self.accepts {
            ace(&name, matches)
        } else {
            drops(&name, matches)
        }
    }

    /// Whether the first packet of a flow to a port matches, from a high port.
    fn matches(&self, opens_from_device: bool, peer: &str, protocol: u8, port: u16) -> bool {
        let has = |range: Option<(u16, u16)>, port: u16| {
            range.is_none_or(|(a, b)| a <= port && port <= b)
        };
        let initiated = self.initiated.filter(|_| self.protocol == 6);
        self.from_device == opens_from_device
            && PEERS[self.peer].1.contains(&peer)
            && self.protocol == protocol
            && has(self.source, 50_000)
            && has(self.source, 1)
            && has(self.destination, port)
            && initiated.is_none_or(|from| from == opens_from_device)
            && !self.odd
    }

    /// Whether it may take something away from what a rule allows.
    fn may_drop(&self, opens_from_device: bool, protocol: u8, port: u16) -> bool {
        let has = self.destination.is_none_or(|(a, b)| a <= port && port <= b);
        !self.accepts
            && self.from_device == opens_from_device
            && self.protocol == protocol
            && (has || self.odd)
    }
}

fn range() -> impl Strategy<Value = Option<(u16, u16)>> {
    prop::option::of((0u16..6, 0u16..3).prop_map(|(first, more)| (first, first + more)))
}

fn naive() -> impl Strategy<Value = Naive> {
    (
        any::<bool>(),
        prop::bool::weighted(0.85),
        0..PEERS.len(),
        prop::sample::select(vec![6u8, 17]),
        (range(), range()),
        prop::option::of(any::<bool>()),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(from_device, accepts, peer, protocol, (source, destination), initiated, odd)| Naive {
                from_device,
                accepts,
                peer,
                protocol,
                source,
                destination,
                initiated,
                odd,
            },
        )
}

fn read_service(text: &str) -> (u8, u16, u16) {
    let (protocol, ports) = text.split_once('/').unwrap();
    let protocol = if protocol == "tcp" { 6 } else { 17 };
    let (first, last) = match ports {
        "*" => ("0", "65535"),
        ports => ports.split_once('-').unwrap_or((ports, ports)),
    };
    (protocol, first.parse().unwrap(), last.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_rule_allows_what_no_entry_accepts(entries in prop::collection::vec(naive(), 0..8)) {
        let list = |from: bool| -> Vec<Value> {
            let of = entries.iter().enumerate().filter(|it| it.1.from_device == from);
            of.map(|(at, it)| it.json(at)).collect()
        };
        let told = imported(&list(true), &list(false));
        for rule in told.put.rules.iter().filter(|it| !it.name.contains(".default-")) {
            let from_device = rule.labels["mud-direction"] == "from-device";
            let (own, peers) = if from_device { (&rule.from, &rule.to) } else { (&rule.to, &rule.from) };
            prop_assert_eq!(&own[..], ["label:mud=https://lights.example/bulb"]);
            for (peer, service) in peers.iter().flat_map(|peer| rule.services.iter().map(move |it| (peer, it))) {
                let (protocol, first, last) = read_service(service);
                for port in (0..10).chain([50_000, 65_535]).filter(|it| (first..=last).contains(it)) {
                    let accepted = entries.iter().position(|it| {
                        it.accepts && it.matches(from_device, peer, protocol, port)
                    });
                    let Some(accepted) = accepted else {
                        return Err(TestCaseError::fail(format!("{rule:?} {peer} {port}")));
                    };
                    let before = entries[..accepted].iter();
                    let dropped = before.into_iter().any(|it| it.may_drop(from_device, protocol, port));
                    prop_assert!(!dropped, "{:?} {} {}", rule, peer, port);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>, signature: Vec<u8>, text in "[\\[\\]{}:,\"a-z0-9]{0,40}") {
        let document = site();
        let anchors = Anchors::default();
        for file in [&bytes[..], text.as_bytes()] {
            let _ = import(&Request {
                file,
                signature: &signature,
                anchors: &anchors,
                now: Timestamp::UNIX_EPOCH,
                subject: None,
                is_approved: true,
                document: &document,
                router_is: &[],
            });
        }
        let _ = Anchors::from_pem(&bytes);
    }
}
