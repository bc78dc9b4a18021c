//! The form of the frame: MACs, VLAN tags, EtherTypes.

use super::{
    case::{
        CONTROL, Family::V4, MALFORMED, RULE, Setting::Ethertypes, Table, UNKNOWN_DEVICE,
        UNKNOWN_ETHERTYPE, WRONG_PORT, WRONG_VLAN, cut,
    },
    network::{
        CAMERA, FAR, LAN1, LAN2, LAN3, PINNED, PUMP, STRANGER, TRUNK, pump, sent, syn, up, v4, v6,
    },
};
use wardline_oracle::frames::{Arp, BROADCAST, Ethernet, Mac, Packet};

const BRIDGES: Mac = [1, 0x80, 0xc2, 0, 0, 0];
const PROFINET: u16 = 0x8892;
const LLDP: u16 = 0x88cc;

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    let hl7 = || pump(v4(syn(2575)));
    let camera = || up(&CAMERA, &FAR, V4, syn(443));

    // MACs.
    t.case("a frame shorter than its header").enters(LAN1, cut(hl7(), 13)).is(MALFORMED);
    t.case("a group as source MAC").enters(LAN1, Ethernet { source: [3, 0, 0, 0, 1, 1], ..hl7() }).is(MALFORMED);
    t.case("the broadcast as source MAC").enters(LAN1, Ethernet { source: BROADCAST, ..hl7() }).is(MALFORMED);
    t.case("a source MAC of zeros").enters(LAN1, Ethernet { source: [0; 6], ..hl7() }).is(MALFORMED);
    t.case("a group as source MAC, over IPv6").enters(LAN1, Ethernet { source: [0x33, 0x33, 0, 0, 0, 1], ..pump(v6(syn(2575))) }).is(MALFORMED);
    t.case("IP for the router in a broadcast frame (hole 196)").enters(LAN1, Ethernet { destination: BROADCAST, ..hl7() }).is(RULE);

    // Tags.
    t.case("a VLAN that the port has").enters(LAN1, camera().tagged(20)).is(RULE);
    t.case("a VLAN that the port has, with priority").enters(LAN1, camera().tagged(7 << 13 | 20)).is(RULE);
    t.case("a VLAN that the port has, droppable").enters(LAN1, camera().tagged(1 << 12 | 20)).is(RULE);
    t.case("a priority tag is no tag").mirrors("tagged frames pass").enters(LAN1, hl7().tagged(0)).is(RULE);
    t.case("a priority tag with its priority").enters(LAN1, hl7().tagged(5 << 13)).is(RULE);
    for id in [1, 10, 4094] {
        t.case(format!("VLAN {id}, which the port has not")).mirrors("tagged frames pass").enters(LAN1, hl7().tagged(id)).is(WRONG_VLAN);
    }
    t.case("VLAN 4095, which is reserved").enters(LAN1, hl7().tagged(0xfff)).is(MALFORMED);
    t.case("an untagged frame where no zone is untagged").enters(TRUNK, hl7()).is(WRONG_VLAN);
    t.case("a frame on its VLAN of a trunk").enters(TRUNK, hl7().tagged(10)).is(RULE);
    t.case("a frame of the trunk's other VLAN").enters(TRUNK, camera().tagged(20)).is(RULE);
    t.case("a frame on the trunk's wrong VLAN").enters(TRUNK, hl7().tagged(20)).is(WRONG_VLAN);
    t.case("a tagged frame on a port without VLANs").mirrors("tagged frames pass").enters(LAN2, camera().tagged(20)).is(WRONG_VLAN);
    t.case("a tagged frame on a port without VLANs, of IPv6").mirrors("tagged frames pass").enters(LAN3, pump(v6(syn(2575))).tagged(10)).is(WRONG_VLAN);
    t.case("IPv6 on its VLAN").enters(TRUNK, pump(v6(syn(2575))).tagged(10)).is(RULE);
    t.case("ARP on its VLAN").enters(LAN1, Ethernet::new(BROADCAST, CAMERA.mac, Arp::request(CAMERA.mac, CAMERA.v4, FAR.v4)).tagged(20)).is(CONTROL);
    t.case("ARP on a VLAN that the port has not").enters(LAN1, Ethernet::new(BROADCAST, CAMERA.mac, Arp::request(CAMERA.mac, CAMERA.v4, FAR.v4)).tagged(30)).is(WRONG_VLAN);

    // More than one tag, and other kinds of tags.
    t.case("two tags, of the native and another VLAN").mirrors("a second tag hops VLANs").enters(LAN1, hl7().tagged(20).tagged(0)).is(UNKNOWN_ETHERTYPE);
    t.case("two tags of the same VLAN").mirrors("a second tag hops VLANs").enters(LAN1, camera().tagged(20).tagged(20)).is(UNKNOWN_ETHERTYPE);
    t.case("two tags on a trunk").mirrors("a second tag hops VLANs").enters(TRUNK, camera().tagged(20).tagged(10)).is(UNKNOWN_ETHERTYPE);
    t.case("three tags").mirrors("a second tag hops VLANs").enters(LAN1, camera().tagged(20).tagged(20).tagged(20)).is(UNKNOWN_ETHERTYPE);
    t.case("802.1ad with a VLAN that the port has").mirrors("802.1ad let through").enters(LAN1, camera().tagged_as(0x88a8, 20)).is(UNKNOWN_ETHERTYPE).under(Ethertypes, UNKNOWN_ETHERTYPE);
    t.case("802.1ad around 802.1Q").mirrors("802.1ad let through").enters(LAN1, camera().tagged(20).tagged_as(0x88a8, 20)).is(UNKNOWN_ETHERTYPE);
    t.case("802.1ad inside 802.1Q").mirrors("802.1ad let through").enters(LAN1, camera().tagged_as(0x88a8, 20).tagged(20)).is(UNKNOWN_ETHERTYPE);
    for kind in [0x9100, 0x9200] {
        t.case(format!("a tag of the old kind {kind:#06x}")).mirrors("802.1ad let through").enters(LAN1, camera().tagged_as(kind, 20)).is(UNKNOWN_ETHERTYPE);
    }
    t.case("a frame cut within its tag").enters(LAN1, cut(camera().tagged(20), 16)).is(MALFORMED);
    t.case("a tag and not a byte more").enters(LAN1, cut(camera().tagged(20), 18)).is(MALFORMED);
    t.case("a tag before a length instead of an EtherType").enters(LAN1, sent(&CAMERA, Packet::Bytes(38, vec![0x42, 0x42, 3])).tagged(20)).is(UNKNOWN_ETHERTYPE);

    // EtherTypes.
    for (name, number) in [
        ("MPLS", 0x8847), ("PPPoE discovery", 0x8863), ("PPPoE session", 0x8864),
        ("RARP", 0x8035), ("MACsec", 0x88e5), ("transparent Ethernet bridging", 0x6558), 
        ("precision time", 0x88f7), ("slow protocols (LACP)", 0x8809), ("IPX", 0x8137), ("experiment", 0x88b5), ("reserved", 0xffff),
    ] {
        t.case(format!("EtherType {number:#06x}, {name}")).mirrors("unknown ethertype passes")
            .enters(LAN1, pump(Packet::Bytes(number, vec![0x45; 40]))).is(UNKNOWN_ETHERTYPE);
    }
    t.case("PROFINET").mirrors("unknown ethertype passes").enters(LAN1, pump(Packet::Bytes(PROFINET, vec![0; 46]))).is(UNKNOWN_ETHERTYPE).under(Ethertypes, CONTROL);
    t.case("LLDP").mirrors("unknown ethertype passes").enters(LAN1, Ethernet { destination: [1, 0x80, 0xc2, 0, 0, 0x0e], ..pump(Packet::Bytes(LLDP, vec![2, 7, 4])) }).is(UNKNOWN_ETHERTYPE).under(Ethertypes, CONTROL);
    t.case("MPLS where the zone names other EtherTypes").enters(LAN1, pump(Packet::Bytes(0x8847, vec![0; 46]))).is(UNKNOWN_ETHERTYPE).under(Ethertypes, UNKNOWN_ETHERTYPE);
    t.case("PROFINET from an unlisted MAC").enters(LAN1, sent(&STRANGER, Packet::Bytes(PROFINET, vec![0; 46]))).is(UNKNOWN_ETHERTYPE).under(Ethertypes, UNKNOWN_DEVICE);
    t.case("PROFINET in the VLAN of a zone that does not name it").enters(LAN1, sent(&CAMERA, Packet::Bytes(PROFINET, vec![0; 46])).tagged(20)).is(UNKNOWN_ETHERTYPE).under(Ethertypes, UNKNOWN_ETHERTYPE);
    t.case("a bridge's spanning tree").enters(LAN1, Ethernet { destination: BRIDGES, ..pump(Packet::Bytes(38, vec![0x42, 0x42, 3, 0, 0, 0, 0, 0])) }).is(UNKNOWN_ETHERTYPE).under(Ethertypes, UNKNOWN_ETHERTYPE);
    t.case("spanning tree of another maker, in SNAP").enters(LAN1, Ethernet { destination: [1, 0, 0x0c, 0xcc, 0xcc, 0xcd], ..pump(Packet::Bytes(50, [&[0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b][..], &[0; 42]].concat())) }).is(UNKNOWN_ETHERTYPE).under(Ethertypes, UNKNOWN_ETHERTYPE);
    t.case("raw IPX, whose length is followed by ones").enters(LAN1, pump(Packet::Bytes(30, vec![0xff; 30]))).is(UNKNOWN_ETHERTYPE);
    t.case("the largest length, 1500").enters(LAN1, pump(Packet::Bytes(1500, vec![0; 1500]))).is(UNKNOWN_ETHERTYPE);
    t.case("an unknown EtherType on a VLAN that the port has not").enters(LAN1, pump(Packet::Bytes(0x8847, vec![0; 46])).tagged(30)).is(UNKNOWN_ETHERTYPE);

    // Authentication at the port.
    t.case("EAPOL").enters(LAN1, pump(Packet::Bytes(0x888e, vec![1, 1, 0, 0]))).is(CONTROL);
    t.case("EAPOL to the group of its authenticators").enters(LAN1, Ethernet { destination: [1, 0x80, 0xc2, 0, 0, 3], ..pump(Packet::Bytes(0x888e, vec![1, 1, 0, 0])) }).is(CONTROL);
    t.case("EAPOL to another device").mirrors("EAPOL is a way to any host").enters(LAN1, Ethernet { destination: PINNED.mac, ..pump(Packet::Bytes(0x888e, vec![1, 1, 0, 0])) }).is(UNKNOWN_ETHERTYPE);
    t.case("EAPOL from an unlisted MAC").enters(LAN1, sent(&STRANGER, Packet::Bytes(0x888e, vec![1, 1, 0, 0]))).is(UNKNOWN_DEVICE);
    t.case("EAPOL on a VLAN that the port has not").enters(LAN1, pump(Packet::Bytes(0x888e, vec![1, 1, 0, 0])).tagged(30)).is(WRONG_VLAN);
    t.case("EAPOL from a device of another zone").enters(LAN2, sent(&PUMP, Packet::Bytes(0x888e, vec![1, 1, 0, 0]))).is(WRONG_PORT);
}
