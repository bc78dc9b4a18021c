//! What the fuzz targets check, and their seed inputs.
//!
//! The naive reader, the random policies and the random frames are those of the oracle.

mod vendors;

pub use vendors::{mud, mud_seeds};

use std::net::IpAddr;

use wardline_ebpf::{
    abi::{Address, Reason, Settings, gauge, zone},
    cell::Cell32,
    lookup::Lookup as _,
    packet::{self, Packet},
};
use wardline_host_tests::{
    bench::INTERFACES,
    judge::{self, Compiled},
};
use wardline_oracle::{
    dissect::{self, Content, Fragment, Frame, Upper},
    random::{self, NOW, ROUTER},
    sequence::{From, Where},
    streams,
};
use wardline_proto::v1::Policy;

/// Policies that inputs may name: few enough for the fuzzer to learn what they are.
const POLICIES: u16 = 1024;

// ── parse ──────────────────────────────────────────────────────────────────────────────────────

/// Reads a frame with both parsers.
///
/// # Panics
/// When the two disagree in what must never differ.
pub fn parse(data: &[u8]) {
    let [bits, tag @ .., _] = data.get(..4).unwrap_or_default() else {
        return;
    };
    let tag = (bits & 4 != 0).then(|| u16::from_be_bytes([tag[0], tag[1]]));
    let frame = &data[3..];
    let settings = [(1, zone::FRAGMENTS), (2, zone::IP_OPTIONS)];
    let settings = settings.iter().filter(|(bit, _)| bits & bit != 0);
    let settings = settings.fold(0, |all, (_, setting)| all | setting);

    let mut packet = Packet::default();
    let read = packet::ethernet(frame, tag, &mut packet)
        .and_then(|()| packet::network(frame, &mut packet, settings, &Cell32::new(0)));
    let seen = dissect::frame(frame, tag);
    match read {
        Ok(()) => agree(&packet, &seen.expect("the oracle reads it"), frame.len()),
        Err(reason) => assert!(
            matches!(
                reason,
                Reason::Malformed
                    | Reason::UnknownEthertype
                    | Reason::IpOptions
                    | Reason::ExtensionHeader
                    | Reason::Fragment
                    | Reason::BadTcpFlags
            ),
            "{reason:?} is not a reason of form"
        ),
    }
    // An ICMP error may quote anything: reading the quote must stay within the frame.
    let _ = packet::quoted(frame, &packet);
}

fn agree(packet: &Packet, frame: &Frame, length: usize) {
    assert_eq!(packet.vlan, frame.vlan);
    let ip = match &frame.content {
        Content::Ip(ip) => ip,
        Content::Other(ethertype) => {
            assert_eq!(packet.ethertype, *ethertype);
            return;
        }
        Content::Arp(arp) => {
            assert!(arp.is_some(), "malformed ARP was accepted");
            return;
        }
    };
    assert!(!ip.nowhere, "impossible addresses passed");
    assert!(packet.payload <= packet.end && usize::from(packet.end) <= length);
    assert_eq!(packet.source, address(ip.source));
    assert_eq!(packet.destination, address(ip.destination));
    match &ip.upper {
        Upper::Tcp {
            from,
            to,
            flags,
            data,
        } => {
            assert_eq!((packet.source_port, packet.destination_port), (*from, *to));
            assert_eq!((packet.protocol, packet.flags), (6, *flags));
            assert_eq!(packet.data, *data);
        }
        Upper::Udp { from, to, .. } => {
            assert_eq!((packet.source_port, packet.destination_port), (*from, *to));
            assert_eq!(packet.protocol, 17);
        }
        Upper::Icmp { kind, code, .. } => {
            assert_eq!(packet.icmp.to_be_bytes(), [*kind, *code]);
        }
        Upper::Opaque(bytes) => {
            assert_eq!(packet.protocol, ip.protocol);
            assert_eq!(usize::from(packet.end - packet.payload), bytes.len());
        }
        Upper::Hidden => assert_ne!(packet.fragment.offset, 0),
        Upper::Cut | Upper::Broken => panic!("{:?} has passed", ip.upper),
    }
    let whole = |it: Option<Fragment>| it.is_none_or(Fragment::is_atomic);
    assert_eq!(whole(ip.fragment), packet.fragment.next == 0);
}

fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::v4(address.octets()),
        IpAddr::V6(address) => Address::v6(&address.octets()),
    }
}

// ── decide ─────────────────────────────────────────────────────────────────────────────────────

/// Judges frames in sequence.
///
/// # Panics
/// When an answer can't be right, whatever the policy says.
pub fn decide(data: &[u8]) {
    let Some((number, mut rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let policy = policy(u16::from_be_bytes(*number));
    let inventory = judge::inventory(&INTERFACES, &ROUTER);
    let clock = judge::clock(NOW);
    let compiled = Compiled::of_valid(&policy, &Default::default(), &inventory, clock);
    let Some(compiled) = compiled else { return };
    let model = judge::model_for(&compiled, Settings::for_flows(64));
    let places = places();
    while let Some((&[place, high, low], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (frame, after) = after.split_at(length.min(after.len()));
        rest = after;
        let place = &places[usize::from(place) % places.len()];
        let at = compiled.place(place);
        let flows = || model.gauge(gauge::FLOWS).map_or(0, Cell32::load);
        let before = flows();
        let said = judge::host(&model, at, frame);
        assert_eq!(said.passed, said.reason.passes());
        let seen = dissect::frame(frame, None);
        if seen.is_err() && matches!(place, Where::Entering { .. }) {
            assert!(!said.passed, "a malformed frame entered: {said:?}");
        }
        if !said.passed {
            assert!(flows() <= before, "a drop left a flow behind: {said:?}");
        }
        let ip = matches!(
            seen,
            Ok(Frame {
                content: Content::Ip(_),
                ..
            })
        );
        assert!(ip || flows() == before, "a frame without IP opened a flow");
        assert!(flows() <= before + 1, "one frame opened several flows");
    }
}

/// Where frames can be judged; inputs name a place by its index.
fn places() -> Vec<Where> {
    let guarded = &INTERFACES[..4];
    let mut places = Vec::new();
    for interface in guarded {
        let interface = || (*interface).to_owned();
        places.push(Where::Entering {
            interface: interface(),
        });
        let inner = guarded.iter().map(|from| From::Guarded((*from).to_owned()));
        for from in [From::Router, From::Uplink].into_iter().chain(inner) {
            places.push(Where::Leaving {
                interface: interface(),
                from,
            });
        }
    }
    places
}

fn policy(number: u16) -> Policy {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&(number % POLICIES).to_be_bytes());
    random::policy_of(&seed)
}

// ── seed inputs ────────────────────────────────────────────────────────────────────────────────

/// Inputs of [`parse`]: frames as devices and attackers send them.
pub fn parse_seeds() -> Vec<Vec<u8>> {
    let steps = (0..8).flat_map(|number| {
        let policy = policy(number);
        streams::steps(&policy, number.into(), 40, false)
    });
    steps
        .map(|step| [&[3, 0, 0], step.frame.as_slice()].concat())
        .collect()
}

/// Inputs of [`decide`]: short sequences.
pub fn decide_seeds() -> Vec<Vec<u8>> {
    let places = places();
    let sequence = |number: u16| {
        let mut data = number.to_be_bytes().to_vec();
        for step in streams::steps(&policy(number), number.into(), 12, false) {
            let Some(place) = places.iter().position(|place| *place == step.at) else {
                continue;
            };
            data.push(place as u8);
            data.extend((step.frame.len() as u16).to_be_bytes());
            data.extend(step.frame);
        }
        data
    };
    (0..128).map(sequence).collect()
}
