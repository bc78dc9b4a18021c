//! Leases: what a DHCP server gives to a client is the client's with its next packet, and what it gives
//! back is free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    case::{
        CONTROL, ESTABLISHED, Family, MID_FLOW, RULE, SPOOFED_SOURCE, Says, Setting::AdmitAny,
        Table,
    },
    network::{
        CAMERA, COY, FAR, LAN1, LAN2, Party, RECORDS, ROUTER, ROUTER_2, ROUTER_ITSELF, SHY,
        STRANGER, UPLINK, back, down, syn, up,
    },
};
use wardline_oracle::frames::{
    ACK, BROADCAST, Dhcp, Ethernet, Ipv4, Ipv6, Mac, Packet, SYN, Udp, dhcpv6, group_mac,
};

/// All servers and relays of DHCPv6 on the link.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A client's request for the address of a party.
fn request(mac: Mac, wanted: &Party, family: Family) -> Ethernet {
    match family {
        Family::V4 => {
            let mut message = Dhcp::client(3, mac);
            message.options.push((50, wanted.v4.octets().to_vec()));
            let packet = Ipv4::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, message.udp());
            Ethernet::new(BROADCAST, mac, packet)
        }
        Family::V6 => {
            let packet = Ipv6::new(link_local(mac), SERVERS, dhcpv6(3, mac));
            Ethernet::new(group_mac(SERVERS), mac, packet)
        }
    }
}

/// The router's answer to a client, which gives it the address of a party for so many seconds.
fn gives(mac: Mac, given: &Party, family: Family, seconds: u32) -> Ethernet {
    let udp = match family {
        Family::V4 => Dhcp::server(5, ROUTER_2.v4, mac, given.v4).udp(),
        Family::V6 => given_v6(mac, given, seconds),
    };
    answer(mac, udp)
}

fn given_v6(mac: Mac, given: &Party, seconds: u32) -> Udp {
    with_address(dhcpv6(7, mac), given.v6, seconds)
}

/// A message of DHCPv6 with an association of one address (RFC 8415 section 21.4 and 21.6).
fn with_address(mut udp: Udp, address: Ipv6Addr, seconds: u32) -> Udp {
    let time = seconds.to_be_bytes();
    udp.data.extend([0, 3, 0, 40]);
    udp.data.extend([0; 12]);
    udp.data.extend([0, 5, 0, 24]);
    udp.data.extend(address.octets());
    udp.data.extend([time, time].concat());
    udp
}

fn answer(mac: Mac, udp: Udp) -> Ethernet {
    if udp.destination_port == 68 {
        let packet = Ipv4::new(ROUTER_2.v4, Ipv4Addr::BROADCAST, udp);
        Ethernet::new(mac, ROUTER.mac, packet)
    } else {
        let packet = Ipv6::new(link_local(ROUTER.mac), link_local(mac), udp);
        Ethernet::new(mac, ROUTER.mac, packet)
    }
}

/// The link-local address that a host makes of its MAC.
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.map(u16::from);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        (a ^ 2) << 8 | b,
        c << 8 | 0xff,
        0xfe00 | d,
        e << 8 | f,
    )
}

/// The frames of a client that gives its address back.
fn release(mac: Mac, party: &Party, family: Family) -> Ethernet {
    match party.at(family) {
        IpAddr::V4(own) => {
            let message = Dhcp {
                client: own,
                ..Dhcp::client(7, mac)
            };
            Ethernet::new(ROUTER.mac, mac, Ipv4::new(own, ROUTER_2.v4, message.udp()))
        }
        IpAddr::V6(own) => {
            let udp = with_address(dhcpv6(8, mac), own, 0);
            Ethernet::new(
                group_mac(SERVERS),
                mac,
                Ipv6::new(link_local(mac), SERVERS, udp),
            )
        }
    }
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    // The address of `coy`, from either.
    let by = |mac: Mac, to: &Party, f| Ethernet { source: mac, ..up(&COY, to, f, syn(443)) };
    let lease = |c: &mut super::Case, mac, f| { c.enters(LAN2, request(mac, &COY, f)).leaves(LAN2, ROUTER_ITSELF, gives(mac, &COY, f, 3600)); };
    const LEASED: [Says; 2] = [CONTROL, CONTROL];
    let is = |c: &mut super::Case, says: &[Says]| { c.is(says.to_vec()); };

    t.both("a lease that moves to another works with its first packet", |c, f| {
        lease(c, SHY.mac, f);
        c.enters(LAN2, by(SHY.mac, &FAR, f));
        lease(c, COY.mac, f);
        c.enters(LAN2, by(COY.mac, &RECORDS, f)).enters(LAN2, by(SHY.mac, &ROUTER, f));
        is(c, &[&LEASED[..], &[RULE], &LEASED, &[RULE, SPOOFED_SOURCE]].concat());
    });
    t.both("what comes for a connection of who had the lease is not for who has it now", |c, f| {
        lease(c, SHY.mac, f);
        c.enters(LAN2, by(SHY.mac, &FAR, f));
        lease(c, COY.mac, f);
        c.leaves(LAN2, UPLINK, down(&FAR, &COY, f, back(443, SYN | ACK)));
        is(c, &[&LEASED[..], &[RULE], &LEASED, &[MID_FLOW]].concat());
    });
    t.both("what comes for a connection of who still has the lease", |c, f| {
        lease(c, COY.mac, f);
        c.enters(LAN2, by(COY.mac, &FAR, f));
        lease(c, COY.mac, f);
        c.leaves(LAN2, UPLINK, down(&FAR, &COY, f, back(443, SYN | ACK)));
        is(c, &[&LEASED[..], &[RULE], &LEASED, &[ESTABLISHED]].concat());
    });
    t.both("an address that another uses without a lease is not given away", |c, f| {
        c.mirrors("a client gets a server to give it the address of a device that has it from nobody");
        c.enters(LAN2, by(SHY.mac, &FAR, f));
        lease(c, COY.mac, f);
        c.enters(LAN2, by(COY.mac, &RECORDS, f));
        is(c, &[&[RULE][..], &LEASED, &[SPOOFED_SOURCE]].concat());
    });
    t.both("a lease that nobody has asked for changes nothing", |c, f| {
        lease(c, SHY.mac, f);
        c.leaves(LAN2, ROUTER_ITSELF, gives(COY.mac, &COY, f, 3600)).enters(LAN2, by(COY.mac, &FAR, f));
        is(c, &[&LEASED[..], &[CONTROL, SPOOFED_SOURCE]].concat());
    });
    t.both("a lease of another exchange of messages", |c, f| {
        lease(c, SHY.mac, f);
        let mut other = gives(COY.mac, &COY, f, 3600);
        if let Packet::Ipv4(packet) = &mut other.packet {
            packet.upper = Dhcp { transaction: 1, ..Dhcp::server(5, ROUTER_2.v4, COY.mac, COY.v4) }.udp().into();
        } else {
            let mut udp = given_v6(COY.mac, &COY, 3600);
            udp.data[1..4].copy_from_slice(&[1, 1, 1]);
            other = answer(COY.mac, udp);
        }
        c.enters(LAN2, request(COY.mac, &COY, f)).leaves(LAN2, ROUTER_ITSELF, other).enters(LAN2, by(COY.mac, &FAR, f));
        is(c, &[&LEASED[..], &LEASED, &[SPOOFED_SOURCE]].concat());
    });
    t.both("a lease that comes too late", |c, f| {
        lease(c, SHY.mac, f);
        c.enters(LAN2, request(COY.mac, &COY, f)).leaves(LAN2, ROUTER_ITSELF, gives(COY.mac, &COY, f, 3600)).after(100).enters(LAN2, by(COY.mac, &FAR, f));
        is(c, &[&LEASED[..], &LEASED, &[SPOOFED_SOURCE]].concat());
    });
    t.both("a lease that leaves through another port than the question came in", |c, f| {
        lease(c, SHY.mac, f);
        c.enters(LAN2, request(COY.mac, &COY, f)).leaves("lan4", ROUTER_ITSELF, gives(COY.mac, &COY, f, 3600)).enters(LAN2, by(COY.mac, &FAR, f));
        is(c, &[&LEASED[..], &LEASED, &[SPOOFED_SOURCE]].concat());
    });
    t.both("a lease of an address that another lists", |c, f| {
        c.enters(LAN2, request(COY.mac, &CAMERA, f)).leaves(LAN2, ROUTER_ITSELF, gives(COY.mac, &CAMERA, f, 3600))
            .enters(LAN2, Ethernet { source: COY.mac, ..up(&CAMERA, &FAR, f, syn(443)) });
        is(c, &[&LEASED[..], &[SPOOFED_SOURCE]].concat());
    });
    t.both("a lease of an address of another zone", |c, f| {
        c.enters(LAN2, request(COY.mac, &STRANGER, f)).leaves(LAN2, ROUTER_ITSELF, gives(COY.mac, &STRANGER, f, 3600))
            .enters(LAN2, Ethernet { source: COY.mac, ..up(&STRANGER, &FAR, f, syn(443)) });
        is(c, &[&LEASED[..], &[SPOOFED_SOURCE]].concat());
    });
    t.both("a lease that its client gives back is free", |c, f| {
        lease(c, SHY.mac, f);
        c.enters(LAN2, by(SHY.mac, &FAR, f)).enters(LAN2, release(SHY.mac, &COY, f)).enters(LAN2, by(COY.mac, &RECORDS, f)).enters(LAN2, by(SHY.mac, &ROUTER, f));
        is(c, &[&LEASED[..], &[RULE, CONTROL, RULE, SPOOFED_SOURCE]].concat());
    });
    t.case("a lease that the server refuses to renew is free")
        .enters(LAN2, request(SHY.mac, &COY, Family::V4)).leaves(LAN2, ROUTER_ITSELF, gives(SHY.mac, &COY, Family::V4, 3600))
        .enters(LAN2, request(SHY.mac, &COY, Family::V4)).leaves(LAN2, ROUTER_ITSELF, answer(SHY.mac, Dhcp::server(6, ROUTER_2.v4, SHY.mac, Ipv4Addr::UNSPECIFIED).udp()))
        .enters(LAN2, by(COY.mac, &FAR, Family::V4)).is([CONTROL, CONTROL, CONTROL, CONTROL, RULE]);
    t.case("a lease that ends with the server's answer is free")
        .enters(LAN2, request(SHY.mac, &COY, Family::V6)).leaves(LAN2, ROUTER_ITSELF, gives(SHY.mac, &COY, Family::V6, 3600))
        .enters(LAN2, request(SHY.mac, &COY, Family::V6)).leaves(LAN2, ROUTER_ITSELF, gives(SHY.mac, &COY, Family::V6, 0))
        .enters(LAN2, by(COY.mac, &FAR, Family::V6)).is([CONTROL, CONTROL, CONTROL, CONTROL, RULE]);
    t.both("a lease of a guest that moves to another guest", |c, f| {
        let other: Mac = [2, 0, 0, 0, 0xee, 2];
        let by = |mac, to: &Party| Ethernet { source: mac, ..up(&STRANGER, to, f, syn(443)) };
        for mac in [STRANGER.mac, other] {
            c.enters(LAN1, request(mac, &STRANGER, f)).leaves(LAN1, ROUTER_ITSELF, gives(mac, &STRANGER, f, 3600));
            c.enters(LAN1, by(mac, if mac == other { &RECORDS } else { &FAR }));
        }
        c.enters(LAN1, by(STRANGER.mac, &ROUTER));
        c.under(AdmitAny, [CONTROL, CONTROL, RULE, CONTROL, CONTROL, RULE, SPOOFED_SOURCE]);
    });
}
