//! Fragments: all dropped, or, where the zone allows them, followed from the first to the last.

use super::{
    case::{
        BAD_TCP_FLAGS, Case, ESTABLISHED, EXTENSION_HEADER, FRAGMENT, Family,
        Family::V4,
        IP_OPTIONS, MALFORMED, MID_FLOW, NO_RULE, Origin, RULE, SPOOFED_SOURCE,
        Setting::{Fragments, FragmentsAndOptions, Observe},
        Table, UNKNOWN_DEVICE, again, would,
    },
    network::{
        CAMERA, FAR, FROM_LAN1, LAN1, LAN2, LAN3, PINNED, PUMP, Party, RECORDS, ROUTER,
        ROUTER_ITSELF, STRANGER, TRUNK, TWOFOLD, TWOFOLDS_OTHER_MAC, UPLINK, VPN, back, down,
        forwarded, pump, sent, syn, udp, up, v4, v6,
    },
};
use wardline_oracle::frames::{
    ACK, Ethernet, Extension, Ipv4, Ipv6, PSH, Packet, ROUTER_ALERT, SYN, Udp, Upper, icmpv6,
};

const ID: u32 = 0x5744;

/// Part of an IP payload, as a fragment: where it starts, its bytes, and whether more follow.
#[derive(Clone)]
struct Part<'a> {
    from: &'a Party,
    to: &'a Party,
    protocol: u8,
    id: u32,
    at: usize,
    bytes: Vec<u8>,
    more: bool,
}

impl Part<'_> {
    fn packet(&self, f: Family) -> Packet {
        let upper = Upper::Bytes(self.protocol, self.bytes.clone());
        let offset = (self.at / 8) as u16;
        match f {
            V4 => Ipv4 {
                identification: self.id as u16,
                more_fragments: self.more,
                fragment_offset: offset,
                ..Ipv4::new(self.from.v4, self.to.v4, upper)
            }
            .into(),
            Family::V6 => Ipv6::new(self.from.v6, self.to.v6, upper)
                .with(Extension::fragment(offset, self.more, self.id))
                .into(),
        }
    }

    fn frame(&self, f: Family) -> Ethernet {
        sent(self.from, self.packet(f))
    }
}

/// A fragment of what the pump sends to the records.
fn part(protocol: u8, at: usize, bytes: &[u8], more: bool) -> Part<'static> {
    let bytes = bytes.to_vec();
    Part {
        from: &PUMP,
        to: &RECORDS,
        protocol,
        id: ID,
        at,
        bytes,
        more,
    }
}

/// A datagram of the pump to the records, without checksum: 8 bytes of header, then data.
fn datagram(port: u16, length: usize) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let [more, less] = (length as u16).to_be_bytes();
    let mut bytes = vec![0x9c, 0x40, high, low, more, less, 0, 0];
    bytes.resize(length, b'.');
    bytes
}

/// A TCP header of so many words, and data up to a length.
fn segment(port: u16, flags: u8, words: u8, length: usize) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let mut bytes = vec![
        0x9c,
        0x40,
        high,
        low,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        words << 4,
        flags,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ];
    bytes.resize(length, 1);
    bytes
}

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    // A datagram of 64 bytes, in parts.
    let whole = datagram(514, 64);
    let d = |from: usize, to: usize| part(17, from, &whole[from..to], to < 64);
    fn enter<'a>(c: &'a mut Case, f: Family, parts: &[Part<'_>]) -> &'a mut Case {
        parts.iter().fold(c, |c, part| c.enters(LAN1, part.frame(f)))
    }

    t.both("two fragments in order", |c, f| {
        enter(c, f, &[d(0, 32), d(32, 64)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED]).under(Observe, would(FRAGMENT));
    });
    t.both("four fragments in order", |c, f| {
        enter(c, f, &[d(0, 16), d(16, 32), d(32, 48), d(48, 64)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED, ESTABLISHED, ESTABLISHED]);
    });
    t.both("a later fragment of which no first was seen", |c, f| {
        c.mirrors("fragments are not looked at");
        enter(c, f, &[d(32, 64)]).is(FRAGMENT).under(Fragments, FRAGMENT);
    });
    let look_alike = segment(2575, SYN, 5, 24);
    t.both("a later fragment whose bytes look like an allowed connection", |c, f| {
        c.mirrors("later fragments judged by payload bytes");
        enter(c, f, &[part(6, 32, &look_alike, false)]).is(FRAGMENT).under(Fragments, FRAGMENT);
    });
    t.both("the last fragment before the first", |c, f| {
        enter(c, f, &[d(32, 64), d(0, 32), d(32, 64)]).is(FRAGMENT).under(Fragments, [FRAGMENT, RULE, ESTABLISHED]);
    });
    t.both("fragments out of order", |c, f| {
        enter(c, f, &[d(0, 16), d(32, 64), d(16, 32), d(32, 64)]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT, ESTABLISHED, ESTABLISHED]);
    });
    t.both("a gap between fragments", |c, f| {
        enter(c, f, &[d(0, 16), d(24, 64)]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a fragment that overlaps the first by eight bytes", |c, f| {
        c.mirrors("a later fragment overwrites what was judged (RFC 5722)");
        enter(c, f, &[d(0, 32), d(24, 64)]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a fragment inside one that was there", |c, f| {
        c.mirrors("a later fragment overwrites what was judged (RFC 5722)");
        enter(c, f, &[d(0, 16), d(16, 48), part(17, 24, &whole[24..40], true)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED, FRAGMENT]);
    });
    t.both("a later fragment twice", |c, f| {
        enter(c, f, &[d(0, 16), d(16, 32), d(16, 32)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED, FRAGMENT]);
    });
    t.both("a second first fragment, for another port", |c, f| {
        c.mirrors("a second first fragment overwrites the port that was judged");
        enter(c, f, &[d(0, 32), part(17, 0, &datagram(23, 64)[..32], true), d(32, 64)]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT, FRAGMENT]);
    });
    t.both("a second first fragment, the same", |c, f| {
        enter(c, f, &[d(0, 32), d(0, 32), d(32, 64)]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT, FRAGMENT]);
    });
    t.both("the last fragment twice", |c, f| {
        enter(c, f, &[d(0, 32), d(32, 64), d(32, 64)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED, FRAGMENT]);
    });
    t.both("the same identification again, after the last", |c, f| {
        enter(c, f, &[d(0, 32), d(32, 64), d(0, 32), d(32, 64)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED, ESTABLISHED, ESTABLISHED]);
    });
    t.both("a last fragment six seconds after the first", |c, f| {
        enter(c, f, &[d(0, 32), d(32, 64)]).after(6).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a last fragment four seconds after the first", |c, f| {
        enter(c, f, &[d(0, 32), d(32, 64)]).after(4).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED]);
    });

    // Which packet a fragment belongs to.
    t.both("a later fragment of another identification", |c, f| {
        enter(c, f, &[d(0, 32), Part { id: ID + 1, ..d(32, 64) }]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a later fragment of another protocol", |c, f| {
        enter(c, f, &[d(0, 32), Part { protocol: 6, ..d(32, 64) }]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a later fragment to somebody else", |c, f| {
        enter(c, f, &[d(0, 32), Part { to: &FAR, ..d(32, 64) }]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a later fragment from another device's MAC", |c, f| {
        c.mirrors("packets of a known flow are not asked where they come from")
            .enters(LAN1, d(0, 32).frame(f)).enters(LAN1, Ethernet { source: PINNED.mac, ..d(32, 64).frame(f) })
            .is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a later fragment from the device's other MAC", |c, f| {
        let from = |part: Part<'_>| Part { from: &TWOFOLD, ..part }.frame(f);
        c.enters(LAN1, from(d(0, 32))).enters(LAN1, Ethernet { source: TWOFOLDS_OTHER_MAC, ..from(d(32, 64)) })
            .is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a later fragment on another port of the zone", |c, f| {
        c.enters(LAN1, d(0, 32).frame(f)).enters(LAN3, d(32, 64).frame(f)).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("fragments on a VLAN", |c, f| {
        c.enters(TRUNK, d(0, 32).frame(f).tagged(10)).enters(TRUNK, d(32, 64).frame(f).tagged(10)).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED]);
    });
    t.both("fragments of a zone that drops them", |c, f| {
        c.enters(LAN2, Part { from: &CAMERA, to: &FAR, ..d(0, 32) }.frame(f)).is(FRAGMENT).under(Fragments, FRAGMENT);
    });
    t.both("fragments of a zone that drops them, on a shared port", |c, f| {
        c.enters(LAN1, Part { from: &CAMERA, to: &FAR, ..d(0, 32) }.frame(f).tagged(20)).is(FRAGMENT).under(Fragments, FRAGMENT);
    });
    t.both("fragments from an unlisted MAC", |c, f| {
        enter(c, f, &[Part { from: &STRANGER, ..d(0, 32) }, Part { from: &STRANGER, ..d(32, 64) }]).is(FRAGMENT).under(Fragments, [UNKNOWN_DEVICE, FRAGMENT]);
    });
    t.both("fragments with a spoofed source", |c, f| {
        c.enters(LAN1, Ethernet { source: PUMP.mac, ..Part { from: &PINNED, ..d(0, 32) }.frame(f) }).is(FRAGMENT).under(Fragments, SPOOFED_SOURCE);
    });
    t.both("fragments that no rule allows", |c, f| {
        let bytes = datagram(9, 64);
        enter(c, f, &[part(17, 0, &bytes[..32], true), part(17, 32, &bytes[32..], false)]).is(FRAGMENT).under(Fragments, [NO_RULE, FRAGMENT]);
    });

    // What a first fragment must hold.
    t.both("a first fragment with eight bytes of TCP", |c, f| {
        c.mirrors("the flags of TCP are in the second fragment (RFC 1858)");
        enter(c, f, &[part(6, 0, &segment(2575, SYN, 5, 8)[..8], true), part(6, 8, &segment(2575, SYN, 5, 24)[8..], false)]).is(FRAGMENT).under(Fragments, FRAGMENT);
    });
    t.both("a first fragment with sixteen bytes of TCP", |c, f| {
        c.mirrors("the flags of TCP are in the second fragment (RFC 1858)");
        enter(c, f, &[part(6, 0, &segment(2575, SYN, 5, 24)[..16], true)]).is(FRAGMENT).under(Fragments, FRAGMENT);
    });
    t.both("a first fragment with all of TCP's header", |c, f| {
        let bytes = segment(2575, SYN, 5, 48);
        enter(c, f, &[part(6, 0, &bytes[..24], true), part(6, 24, &bytes[24..], false)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED]);
    });
    t.both("a first fragment that ends within TCP's options", |c, f| {
        enter(c, f, &[part(6, 0, &segment(2575, SYN, 8, 24), true)]).is(FRAGMENT).under(Fragments, FRAGMENT);
    });
    t.both("a first fragment with all of TCP's options", |c, f| {
        enter(c, f, &[part(6, 0, &segment(2575, SYN, 8, 32), true)]).is(FRAGMENT).under(Fragments, RULE);
    });
    t.both("a first fragment of TCP with SYN and FIN", |c, f| {
        enter(c, f, &[part(6, 0, &segment(2575, SYN | 1, 5, 24), true)]).is(FRAGMENT).under(Fragments, BAD_TCP_FLAGS);
    });
    t.both("a fragment eight bytes into TCP", |c, f| {
        c.mirrors("a fragment at offset 1 overwrites TCP's flags (RFC 3128)");
        let bytes = segment(2575, SYN, 5, 48);
        enter(c, f, &[part(6, 0, &bytes[..24], true), part(6, 8, &bytes[8..], false)]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a fragment eight bytes into UDP, where it continues", |c, f| {
        c.mirrors("a fragment at offset 1 overwrites TCP's flags (RFC 3128)");
        enter(c, f, &[d(0, 8), d(8, 64)]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a first fragment whose UDP length is less than what is there", |c, f| {
        enter(c, f, &[part(17, 0, &[&datagram(514, 16)[..8], &[0; 24]].concat(), true)]).is(MALFORMED).under(Fragments, MALFORMED);
    });
    t.both("a first fragment of no bytes", |c, f| {
        enter(c, f, &[part(17, 0, &[], true)]).is(FRAGMENT).under(Fragments, MALFORMED);
    });
    t.both("a first fragment that is no multiple of eight", |c, f| {
        enter(c, f, &[part(17, 0, &whole[..20], true)]).is(FRAGMENT).under(Fragments, MALFORMED);
    });
    t.both("a middle fragment that is no multiple of eight", |c, f| {
        enter(c, f, &[d(0, 16), part(17, 16, &whole[16..36], true)]).is(FRAGMENT).under(Fragments, [RULE, MALFORMED]);
    });
    t.both("a last fragment that is no multiple of eight", |c, f| {
        enter(c, f, &[d(0, 16), part(17, 16, &whole[16..59], false)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED]);
    });
    t.both("a last fragment of no bytes", |c, f| {
        enter(c, f, &[d(0, 16), part(17, 16, &[], false)]).is(FRAGMENT).under(Fragments, [RULE, MALFORMED]);
    });
    t.both("a fragment that ends beyond 65535 (ping of death)", |c, f| {
        c.mirrors("the end of the last fragment overflows (CVE-1999-0128)");
        let protocol = if f == V4 { 1 } else { 58 };
        enter(c, f, &[part(protocol, 8191 * 8, &[0; 64], false)]).is(FRAGMENT).under(Fragments, MALFORMED);
    });
    t.both("a large ping in fragments", |c, f| {
        let (protocol, kind) = if f == V4 { (1, 8) } else { (58, 128) };
        let bytes = [&[kind, 0, 0, 0, 0, 7, 0, 1][..], &[0; 56]].concat();
        enter(c, f, &[part(protocol, 0, &bytes[..32], true), part(protocol, 32, &bytes[32..], false)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED]);
    });
    t.both("a ping reply in fragments, of no flow", |c, f| {
        let (protocol, kind) = if f == V4 { (1, 0) } else { (58, 129) };
        enter(c, f, &[part(protocol, 0, &[kind, 0, 0, 0, 0, 7, 0, 1], true)]).is(FRAGMENT).under(Fragments, MID_FLOW);
    });
    t.both("fragments of a tunnel that a rule names", |c, f| {
        let gre = |at, more| Part { to: &VPN, ..part(47, at, &[0; 32], more) };
        enter(c, f, &[gre(0, true), gre(32, false)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED]);
    });
    t.both("data of an open connection in fragments", |c, f| {
        let bytes = segment(2575, ACK | PSH, 5, 64);
        c.enters(LAN1, up(&PUMP, &RECORDS, f, syn(2575)))
            .leaves(LAN1, UPLINK, down(&RECORDS, &PUMP, f, back(2575, SYN | ACK)))
            .enters(LAN1, part(6, 0, &bytes[..32], true).frame(f))
            .enters(LAN1, part(6, 32, &bytes[32..], false).frame(f))
            .is([RULE, ESTABLISHED, FRAGMENT, FRAGMENT]).under(Fragments, [RULE, ESTABLISHED, ESTABLISHED, ESTABLISHED]);
    });
    t.both("data in fragments, of no connection", |c, f| {
        let bytes = segment(2575, ACK | PSH, 5, 64);
        enter(c, f, &[part(6, 0, &bytes[..32], true), part(6, 32, &bytes[32..], false)]).is(FRAGMENT).under(Fragments, [MID_FLOW, FRAGMENT]);
    });

    // IPv4 only.
    let whole4 = || v4(Udp { checksum: Some(0), ..Udp::new(40_000, 514, vec![b'.'; 56]) });
    let [first, last] = whole4().fragmented(32);
    t.case("IPv4 fragments with don't fragment").enters(LAN1, pump(Ipv4 { dont_fragment: true, ..first.clone() })).is(FRAGMENT).under(Fragments, RULE);
    let options = |packet: &Ipv4, options: &[u8]| pump(Ipv4 { options: options.to_vec(), ..packet.clone() });
    t.case("IPv4 fragments with options").enters(LAN1, options(&first, &[1; 4])).enters(LAN1, options(&last, &[1; 4]))
        .is(IP_OPTIONS).under(Fragments, IP_OPTIONS).under(FragmentsAndOptions, [RULE, ESTABLISHED]);
    t.case("IPv4 fragments with a source route").enters(LAN1, options(&first, &[131, 3, 4, 0]))
        .is(IP_OPTIONS).under(Fragments, IP_OPTIONS).under(FragmentsAndOptions, IP_OPTIONS);
    t.case("an IGMP report in a fragment").enters(LAN1, pump(Ipv4 { more_fragments: true, options: ROUTER_ALERT.to_vec(), ..Ipv4::new(PUMP.v4, [239, 1, 1, 1].into(), Upper::Bytes(2, vec![0x16, 0, 0, 0, 239, 1, 1, 1])) }))
        .is(FRAGMENT).under(Fragments, FRAGMENT);

    // IPv6 only.
    let atomic = || Extension::fragment(0, false, ID);
    t.case("an atomic fragment").mirrors("a packet with an extension header is of no known protocol, and passes")
        .enters(LAN1, pump(v6(udp(514)).with(atomic()))).is(FRAGMENT).under(Fragments, RULE);
    t.case("an atomic fragment that no rule allows").enters(LAN1, pump(v6(udp(9)).with(atomic()))).is(FRAGMENT).under(Fragments, NO_RULE);
    t.case("an atomic fragment twice, of the same identification").enters(LAN1, pump(v6(udp(514)).with(atomic()))).enters(LAN1, pump(v6(udp(514)).with(atomic())))
        .is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED]);
    t.case("an atomic fragment between a first and a last").enters(LAN1, d(0, 32).frame(Family::V6)).enters(LAN1, pump(v6(udp(514)).with(atomic()))).enters(LAN1, d(32, 64).frame(Family::V6))
        .is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED, ESTABLISHED]);
    t.case("an atomic fragment that cuts its TCP header").enters(LAN1, pump(v6(Upper::Bytes(6, segment(2575, SYN, 5, 16)[..16].to_vec())).with(atomic()))).is(MALFORMED).under(Fragments, MALFORMED);
    t.case("two fragment headers").mirrors("a second fragment header is not looked at").enters(LAN1, pump(v6(udp(514)).with(atomic()).with(atomic()))).is(EXTENSION_HEADER).under(Fragments, EXTENSION_HEADER).under(FragmentsAndOptions, EXTENSION_HEADER);
    let shifted = |reserved: u8| {
        let mut header = atomic();
        header.body[0] = reserved;
        header
    };
    // Another header eight bytes further on, where a length read from the reserved byte would lead.
    let two = [&datagram(9, 24)[..8], &datagram(514, 16)].concat();
    t.case("a fragment header whose reserved byte would shift the ports").mirrors("fragment header length taken from its reserved byte")
        .enters(LAN1, pump(v6(Upper::Bytes(17, two.clone())).with(shifted(1)))).is(FRAGMENT).under(Fragments, NO_RULE);
    t.case("a fragment header before a header that an offset of 16 would find").mirrors("a fragment header taken for one of 16 bytes")
        .enters(LAN1, pump(v6(Upper::Bytes(17, two)).with(atomic()))).is(FRAGMENT).under(Fragments, NO_RULE);
    t.case("a fragment header cut by the packet's end").enters(LAN1, pump(Ipv6 { length: Some(4), ..v6(Upper::Bytes(17, vec![])).with(atomic()) })).is(MALFORMED).under(Fragments, MALFORMED);
    let options = || Extension::destination(&[1, 4, 0, 0, 0, 0]);
    t.case("destination options before an atomic fragment").enters(LAN1, pump(v6(udp(514)).with(options()).with(atomic()))).is(EXTENSION_HEADER).under(Fragments, EXTENSION_HEADER).under(FragmentsAndOptions, RULE);
    t.case("destination options inside an atomic fragment").enters(LAN1, pump(v6(udp(514)).with(atomic()).with(options()))).is(EXTENSION_HEADER).under(Fragments, EXTENSION_HEADER).under(FragmentsAndOptions, RULE);
    t.case("a routing header before an atomic fragment").enters(LAN1, pump(v6(udp(514)).with(Extension::routing(0, 1, &[0; 20])).with(atomic()))).is(EXTENSION_HEADER).under(FragmentsAndOptions, EXTENSION_HEADER);
    t.case("a first fragment that holds only part of its chain (RFC 7112)").mirrors("the chain of headers goes on in the second fragment")
        .enters(LAN1, pump(Ipv6::new(PUMP.v6, RECORDS.v6, Upper::Bytes(60, vec![17, 1, 1, 12, 0, 0, 0, 0])).with(Extension::fragment(0, true, ID))))
        .is(EXTENSION_HEADER).under(Fragments, EXTENSION_HEADER).under(FragmentsAndOptions, FRAGMENT);
    t.case("a first fragment that holds its chain and no transport").mirrors("the chain of headers goes on in the second fragment")
        .enters(LAN1, pump(Ipv6::new(PUMP.v6, RECORDS.v6, Upper::Bytes(60, vec![17, 0, 1, 4, 0, 0, 0, 0])).with(Extension::fragment(0, true, ID))))
        .is(EXTENSION_HEADER).under(Fragments, EXTENSION_HEADER).under(FragmentsAndOptions, FRAGMENT);
}

#[rustfmt::skip]
pub(crate) fn leaving(t: &mut Table) {
    let whole = datagram(5000, 64);
    let d = |from: &'static Party, at: usize, end: usize| Part { from, to: &PUMP, protocol: 17, id: ID, at, bytes: whole[at..end].to_vec(), more: end < 64 };
    fn leave<'a>(c: &'a mut Case, origin: Origin, f: Family, parts: &[Part<'_>]) -> &'a mut Case {
        parts.iter().fold(c, |c, part| c.leaves(LAN1, origin, forwarded(&PUMP, part.packet(f))))
    }

    t.both("fragments from the uplink, by the zone of the port they leave through", |c, f| {
        leave(c, UPLINK, f, &[d(&RECORDS, 0, 32), d(&RECORDS, 32, 64)]).is(FRAGMENT).under(Fragments, [RULE, ESTABLISHED]);
    });
    t.both("a later fragment from the uplink, of which no first was seen", |c, f| {
        c.mirrors("fragments are not looked at");
        leave(c, UPLINK, f, &[d(&RECORDS, 32, 64)]).is(FRAGMENT).under(Fragments, FRAGMENT);
    });
    t.both("fragments from the uplink that no rule allows", |c, f| {
        leave(c, UPLINK, f, &[d(&FAR, 0, 32), d(&FAR, 32, 64)]).is(FRAGMENT).under(Fragments, [NO_RULE, FRAGMENT]);
    });
    t.both("overlapping fragments from the uplink", |c, f| {
        c.mirrors("a later fragment overwrites what was judged (RFC 5722)");
        leave(c, UPLINK, f, &[d(&RECORDS, 0, 32), d(&RECORDS, 24, 64)]).is(FRAGMENT).under(Fragments, [RULE, FRAGMENT]);
    });
    t.both("a reply from the uplink in fragments", |c, f| {
        let reply = |at: usize, end: usize| {
            let mut bytes = datagram(40_000, 64);
            bytes[..2].copy_from_slice(&514u16.to_be_bytes());
            Part { bytes: bytes[at..end].to_vec(), ..d(&RECORDS, at, end) }
        };
        c.enters(LAN1, up(&PUMP, &RECORDS, f, udp(514)));
        leave(c, UPLINK, f, &[reply(0, 32), reply(32, 64)]).is([RULE, FRAGMENT, FRAGMENT]).under(Fragments, [RULE, ESTABLISHED, ESTABLISHED]);
    });
    let pings = |f: Family, at: usize, end: usize| {
        let (protocol, kind) = if f == V4 { (1, 8) } else { (58, 128) };
        let bytes = [&[kind, 0, 0, 0, 0, 7, 0, 1][..], &[0; 56]].concat();
        Part { from: &ROUTER, protocol, bytes: bytes[at..end].to_vec(), ..d(&RECORDS, at, end) }
    };
    t.both("what the router itself sends in fragments", |c, f| {
        leave(c, ROUTER_ITSELF, f, &[pings(f, 0, 32), pings(f, 32, 64)]).is([RULE, ESTABLISHED]);
    });
    t.both("what entered through a guarded port leaves in fragments", |c, f| {
        let part = |at: usize, end: usize| {
            let bytes = datagram(443, 64);
            Part { from: &PUMP, to: &CAMERA, protocol: 6, bytes: [&segment(443, SYN, 5, 24)[..], &bytes[24..]].concat()[at..end].to_vec(), ..d(&RECORDS, at, end) }
        };
        let (first, last) = (part(0, 32), part(32, 64));
        c.enters(LAN1, first.frame(f)).leaves(LAN2, FROM_LAN1, forwarded(&CAMERA, first.packet(f)))
            .enters(LAN1, last.frame(f)).leaves(LAN2, FROM_LAN1, forwarded(&CAMERA, last.packet(f)))
            .under(Fragments, [RULE, again(ESTABLISHED), ESTABLISHED, again(ESTABLISHED)]);
    });
    t.case("a packet of the router's with all that a router may send").leaves(LAN1, ROUTER_ITSELF, forwarded(&PUMP, Ipv6::new(ROUTER.v6, PUMP.v6, icmpv6::request(7, 1)).with(Extension::fragment(0, false, ID)))).is(RULE);
    t.case("an atomic fragment from the uplink").leaves(LAN1, UPLINK, forwarded(&PUMP, Ipv6::new(RECORDS.v6, PUMP.v6, udp(5000)).with(Extension::fragment(0, false, ID)))).is(FRAGMENT).under(Fragments, RULE);
}
