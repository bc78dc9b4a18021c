//! Groups and broadcasts: judged where they enter, and at each port that they leave through.

use super::{
    case::{
        Case, DENIED_BY_RULE, ESTABLISHED, Family, Family::V4, NO_RULE, Origin, RULE,
        SPOOFED_SOURCE, Says, Table, again,
    },
    network::{
        ANNOUNCED, BRIDGE, CAMERA, FAR, FORBIDDEN, FROM_LAN1, FROM_LAN2, LAN1, LAN2, LAN3, PINNED,
        PUMP, Party, RECORDS, ROUTER, ROUTER_ITSELF, SEARCHED, UNNAMED, UPLINK, pump, syn, udp, up,
    },
};
use wardline_oracle::frames::{
    BROADCAST, Ethernet, Ipv4, Ipv6, Mac, Packet, Udp, group_mac, icmp, ip,
};

/// A frame to a group.
fn to_group(from: &Party, mac: Mac, group: &Party, f: Family, port: u16) -> Ethernet {
    let packet: Packet = ip(from.at(f), group.at(f), udp(port));
    Ethernet::new(mac_of(group, f), mac, packet)
}

pub(super) fn mac_of(group: &Party, f: Family) -> Mac {
    let [_, b, c, d] = group.v4.octets();
    if f == V4 {
        [1, 0, 0x5e, b & 0x7f, c, d]
    } else {
        group_mac(group.v6)
    }
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    let e = ESTABLISHED;
    // Where they enter.
    t.both("to a group that a rule names", |c, f| { c.enters(LAN1, to_group(&PUMP, PUMP.mac, &ANNOUNCED, f, 5004)).enters(LAN1, to_group(&PUMP, PUMP.mac, &ANNOUNCED, f, 5004)).is([RULE, e]); });
    t.both("to a group that a rule names, on another port", |c, f| { c.enters(LAN1, to_group(&PUMP, PUMP.mac, &ANNOUNCED, f, 5999)).is(NO_RULE); });
    t.both("to a group that no rule names", |c, f| { c.mirrors("multicast is not judged"); c.enters(LAN1, to_group(&PUMP, PUMP.mac, &UNNAMED, f, 5004)).is(NO_RULE); });
    t.both("to a group that a rule denies", |c, f| { c.enters(LAN1, to_group(&PUMP, PUMP.mac, &FORBIDDEN, f, 5004)).is(DENIED_BY_RULE); });
    t.both("to a group from another device's address", |c, f| { c.enters(LAN1, to_group(&PINNED, PUMP.mac, &ANNOUNCED, f, 5004)).is(SPOOFED_SOURCE); });
    t.both("to a group that a rule names with any", |c, f| { c.enters(LAN2, to_group(&CAMERA, CAMERA.mac, &UNNAMED, f, 3704)).is(RULE); });
    let datagram = |destination: [u8; 4], port| Ethernet { destination: BROADCAST, ..pump(Ipv4::new(PUMP.v4, destination.into(), Udp::new(40_000, port, *b"data"))) };
    t.case("to the broadcast").mirrors("multicast is not judged").enters(LAN1, datagram([255; 4], 5004)).is(NO_RULE);
    t.case("to the zone's broadcast").mirrors("multicast is not judged").enters(LAN1, datagram([10, 20, 1, 255], 5004)).is(NO_RULE);
    t.case("a ping to the broadcast, which a rule allows (smurf)").enters(LAN1, Ethernet { destination: BROADCAST, ..pump(Ipv4::new(PUMP.v4, [255; 4].into(), icmp::request(7, 1))) }).is(RULE);
    for (name, address, port) in [("mDNS", [224, 0, 0, 251], 5353), ("SSDP", [239, 255, 255, 250], 1900), ("LLMNR", [224, 0, 0, 252], 5355)] {
        t.case(format!("{name} without a rule")).mirrors("multicast is not judged").enters(LAN1, datagram(address, port)).is(NO_RULE);
    }
    t.case("mDNS without a rule, over IPv6").mirrors("multicast is not judged").enters(LAN1, pump(Ipv6::new(PUMP.v6, "ff02::fb".parse().unwrap(), Udp::new(5353, 5353, *b"data")))).is(NO_RULE);
    t.case("mDNS from the link-local address").enters(LAN1, pump(Ipv6::new(super::network::LINK, "ff02::fb".parse().unwrap(), Udp::new(5353, 5353, *b"data")))).is(NO_RULE);
}

#[rustfmt::skip]
pub(crate) fn leaving(t: &mut Table) {
    /// A frame that enters a port of its sender and leaves through others.
    fn fans<'a>(c: &'a mut Case, from: &Party, port: &'static str, f: Family, group: &Party, service: u16, out: &[(&'static str, Origin)]) -> &'a mut Case {
        let frame = to_group(from, from.mac, group, f, service);
        let c = c.enters(port, frame.clone());
        out.iter().fold(c, |c, (port, origin)| c.leaves(port, *origin, frame.clone()))
    }
    let leaves = |c: &mut Case, from: &Party, origin, f, group: &Party, port, says: Says| {
        c.leaves(LAN1, origin, to_group(from, ROUTER.mac, group, f, port)).is(says);
    };

    t.both("a group's packet leaves through a port of the sender's zone", |c, f| {
        fans(c, &PUMP, LAN1, f, &ANNOUNCED, 5004, &[(LAN3, FROM_LAN1)]).is([RULE, again(RULE)]);
    });
    t.both("a group's packet leaves through a port of another zone", |c, f| {
        c.mirrors("multicast is judged once, for all ports it leaves through");
        fans(c, &PUMP, LAN1, f, &ANNOUNCED, 5004, &[(LAN2, FROM_LAN1)]).is([RULE, NO_RULE]);
    });
    t.both("a rule that names only the group does not reach another zone", |c, f| {
        c.mirrors("multicast is judged once, for all ports it leaves through");
        fans(c, &CAMERA, LAN2, f, &SEARCHED, 3702, &[(LAN3, FROM_LAN2)]).is([RULE, NO_RULE]);
    });
    t.both("a rule that names the zone reaches it", |c, f| { fans(c, &CAMERA, LAN2, f, &SEARCHED, 3703, &[(LAN3, FROM_LAN2)]).is([RULE, again(RULE)]); });
    t.both("a rule that names any reaches every zone", |c, f| { fans(c, &CAMERA, LAN2, f, &UNNAMED, 3704, &[(LAN3, FROM_LAN2)]).is([RULE, again(RULE)]); });
    t.both("a rule that denies the zone wins there, and not elsewhere", |c, f| {
        fans(c, &CAMERA, LAN2, f, &UNNAMED, 3705, &[(LAN3, FROM_LAN2)]).is([RULE, DENIED_BY_RULE]);
    });
    t.case("a group's packet through the sender's zone on a VLAN, and the other untagged").enters(LAN2, to_group(&CAMERA, CAMERA.mac, &SEARCHED, V4, 3702))
        .leaves(LAN1, FROM_LAN2, to_group(&CAMERA, CAMERA.mac, &SEARCHED, V4, 3702).tagged(20))
        .leaves(LAN1, FROM_LAN2, to_group(&CAMERA, CAMERA.mac, &SEARCHED, V4, 3702)).is([RULE, again(RULE), NO_RULE]);
    t.both("a group's packet from the router", |c, f| leaves(c, &ROUTER, ROUTER_ITSELF, f, &ANNOUNCED, 5005, RULE));
    t.both("a group's packet from the router that no rule allows", |c, f| leaves(c, &ROUTER, ROUTER_ITSELF, f, &UNNAMED, 5005, NO_RULE));
    t.both("a group's packet from the uplink", |c, f| leaves(c, &RECORDS, UPLINK, f, &ANNOUNCED, 5006, RULE));
    t.both("a group's packet from the uplink that no rule allows", |c, f| {
        c.mirrors("multicast is not judged");
        leaves(c, &FAR, UPLINK, f, &ANNOUNCED, 5006, NO_RULE);
    });
    t.both("a group's packet from the uplink that a rule denies", |c, f| leaves(c, &RECORDS, UPLINK, f, &FORBIDDEN, 5006, DENIED_BY_RULE));
    t.both("a group's packet from the uplink in a device's name", |c, f| leaves(c, &CAMERA, UPLINK, f, &UNNAMED, 3704, SPOOFED_SOURCE));
    t.both("a group's packet from the uplink in the router's name", |c, f| leaves(c, &ROUTER, UPLINK, f, &ANNOUNCED, 5005, SPOOFED_SOURCE));
    t.both("a group's packet through the bridge", |c, f| {
        c.enters(LAN3, to_group(&PUMP, PUMP.mac, &ANNOUNCED, f, 5004)).leaves(LAN1, BRIDGE, to_group(&PUMP, PUMP.mac, &ANNOUNCED, f, 5004)).is([RULE, again(RULE)]);
    });
    t.both("a group's packet in a frame to one MAC reaches no other zone", |c, f| {
        c.mirrors("multicast is known by its MAC alone");
        let frame = to_group(&CAMERA, CAMERA.mac, &SEARCHED, f, 3702);
        c.enters(LAN2, frame.clone()).leaves(LAN3, FROM_LAN2, Ethernet { destination: PUMP.mac, ..frame }).is([RULE, NO_RULE]);
    });
    t.case("a broadcast from the uplink").mirrors("multicast is not judged").leaves(LAN1, UPLINK, Ethernet::new(BROADCAST, FAR.mac, Ipv4::new(FAR.v4, [255; 4].into(), Udp::new(1, 9, *b"data")))).is(NO_RULE);
    t.case("a host's packet in a broadcast frame (hole 196)").leaves(LAN1, UPLINK, Ethernet { destination: BROADCAST, ..up(&FAR, &PUMP, V4, syn(80)) }).is(NO_RULE);
    t.case("a broadcast ping of a pump to the cameras").enters(LAN1, Ethernet { destination: BROADCAST, ..pump(Ipv4::new(PUMP.v4, [255; 4].into(), icmp::request(7, 1))) })
        .leaves(LAN2, FROM_LAN1, Ethernet { destination: BROADCAST, ..pump(Ipv4::new(PUMP.v4, [255; 4].into(), icmp::request(7, 1))) }).is([RULE, again(RULE)]);
}
