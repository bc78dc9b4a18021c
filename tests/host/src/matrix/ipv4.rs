//! The form of IPv4: the header, its lengths, its options.

use super::{
    case::{
        IP_OPTIONS, MALFORMED, NO_RULE, RULE, SPOOFED_SOURCE, Setting::Options, Table,
        UNKNOWN_ETHERTYPE, cut,
    },
    network::{CAMERA, LAN1, LAN2, PUMP, RECORDS, pump, sent, syn, udp, v4, v6},
};
use wardline_oracle::frames::{Ethernet, Ipv4, Packet, SYN};

#[rustfmt::skip]
pub(crate) fn rows(t: &mut Table) {
    let hl7 = || v4(syn(2575));

    t.case("a whole IPv4 packet").enters(LAN1, pump(hl7())).is(RULE);
    t.case("IPv4 cut in the middle of its header").enters(LAN1, cut(pump(hl7()), 14 + 12)).is(MALFORMED);
    t.case("IPv4 one byte short of its header").enters(LAN1, cut(pump(hl7()), 14 + 19)).is(MALFORMED);
    for version in [0, 5, 6] {
        t.case(format!("IPv4 that says version {version}"))
            .enters(LAN1, pump(Ipv4 { version, ..hl7() })).is(MALFORMED);
    }
    t.case("IPv6 behind the EtherType of IPv4")
        .enters(LAN1, Ethernet { ethertype: Some(0x0800), ..pump(v6(syn(2575))) }).is(MALFORMED);

    // Lengths.
    t.case("an IPv4 header of no words").mirrors("a header length below five words is not refused")
        .enters(LAN1, pump(Ipv4 { header_words: Some(0), ..hl7() })).is(MALFORMED);
    t.case("an IPv4 header of four words").mirrors("a header length below five words is not refused")
        .enters(LAN1, pump(Ipv4 { header_words: Some(4), ..hl7() })).is(MALFORMED);
    t.case("an IPv4 header longer than its packet")
        .enters(LAN1, pump(Ipv4 { header_words: Some(15), ..hl7() })).is(MALFORMED).under(Options, MALFORMED);
    t.case("IPv4 options that the total length leaves out")
        .enters(LAN1, pump(Ipv4 { options: vec![1; 4], length: Some(20), ..hl7() })).is(MALFORMED).under(Options, MALFORMED);
    t.case("an IPv4 total length of 0").enters(LAN1, pump(Ipv4 { length: Some(0), ..hl7() })).is(MALFORMED);
    t.case("an IPv4 total length shorter than its header").enters(LAN1, pump(Ipv4 { length: Some(19), ..hl7() })).is(MALFORMED);
    t.case("an IPv4 total length that ends within the TCP header").enters(LAN1, pump(Ipv4 { length: Some(39), ..hl7() })).is(MALFORMED);
    t.case("an IPv4 total length one beyond the frame").enters(LAN1, pump(Ipv4 { length: Some(41), ..hl7() })).is(MALFORMED);
    t.case("an IPv4 total length far beyond the frame").enters(LAN1, pump(Ipv4 { length: Some(1400), ..hl7() })).is(MALFORMED);
    t.case("padding behind IPv4").enters(LAN1, Ethernet { padded_to: 90, ..pump(hl7()) }).is(RULE);
    t.case("a UDP header in the padding behind IPv4").mirrors("ports are read behind the end of the packet")
        .enters(LAN1, Ethernet { padded_to: 60, ..pump(Ipv4 { length: Some(20), ..v4(udp(514)) }) }).is(MALFORMED);

    // Fields that do not affect the verdict: the stack checks them.
    t.case("a wrong IPv4 checksum is the stack's to find").enters(LAN1, pump(Ipv4 { checksum: Some(0xbeef), ..hl7() })).is(RULE);
    t.case("IPv4 with don't fragment").enters(LAN1, pump(Ipv4 { dont_fragment: true, ..hl7() })).is(RULE);
    t.case("IPv4 with the reserved flag (RFC 3514)").enters(LAN1, pump(Ipv4 { fragment_offset: 0x8000, ..hl7() })).is(RULE);
    t.case("IPv4 at the end of its time to live").enters(LAN1, pump(Ipv4 { ttl: 1, ..hl7() })).is(RULE);

    // Addresses that can't be a destination.
    t.case("IPv4 to its own sender (land)").mirrors("a packet to oneself hangs the receiver (CVE-1999-0016)")
        .enters(LAN1, pump(Ipv4::new(PUMP.v4, PUMP.v4, syn(2575)))).is(MALFORMED);
    t.case("IPv4 to 0.0.0.0").enters(LAN1, pump(Ipv4::new(PUMP.v4, [0, 0, 0, 0].into(), syn(443)))).is(MALFORMED);
    t.case("IPv4 to 127.0.0.1").enters(LAN1, pump(Ipv4::new(PUMP.v4, [127, 0, 0, 1].into(), syn(443)))).is(MALFORMED);

    // Options.
    let options = |options: &[u8]| pump(Ipv4 { options: options.to_vec(), ..hl7() });
    t.case("IPv4 options: no operation").enters(LAN1, options(&[1, 1, 1, 1])).is(IP_OPTIONS).under(Options, RULE);
    t.case("IPv4 options: end of list").enters(LAN1, options(&[0, 0, 0, 0])).is(IP_OPTIONS).under(Options, RULE);
    t.case("IPv4 options: record route").enters(LAN1, options(&[7, 7, 4, 0, 0, 0, 0])).is(IP_OPTIONS).under(Options, RULE);
    t.case("IPv4 options: timestamp").enters(LAN1, options(&[68, 8, 5, 0, 0, 0, 0, 0])).is(IP_OPTIONS).under(Options, RULE);
    t.case("IPv4 options: security label").enters(LAN1, options(&[134, 6, 0, 0, 0, 1])).is(IP_OPTIONS).under(Options, RULE);
    t.case("IPv4 options: router alert on TCP").enters(LAN1, options(&[0x94, 4, 0, 0])).is(IP_OPTIONS).under(Options, RULE);
    t.case("IPv4 options: forty bytes of them").enters(LAN1, options(&[&[7, 39, 4][..], &[0; 37]].concat())).is(IP_OPTIONS).under(Options, RULE);
    for (name, kind) in [("loose source route", 131), ("strict source route", 137), ("stream identifier", 136)] {
        t.case(format!("IPv4 options: {name}")).mirrors("source routes pass where options are allowed")
            .enters(LAN1, options(&[kind, 7, 4, 10, 20, 2, 21])).is(IP_OPTIONS).under(Options, IP_OPTIONS);
    }
    t.case("IPv4 options: a loose source route behind others")
        .enters(LAN1, options(&[1, 1, 7, 3, 4, 131, 7, 4, 10, 20, 2, 21])).is(IP_OPTIONS).under(Options, IP_OPTIONS);
    t.case("IPv4 options: bytes behind the end of the list are no option")
        .enters(LAN1, options(&[1, 0, 131, 3])).is(IP_OPTIONS).under(Options, RULE);
    t.case("IPv4 options: one of length 0").mirrors("an option of length 0 is walked for ever")
        .enters(LAN1, options(&[7, 0, 0, 0])).is(MALFORMED).under(Options, MALFORMED);
    t.case("IPv4 options: one of length 1").enters(LAN1, options(&[7, 1, 0, 0])).is(MALFORMED).under(Options, MALFORMED);
    t.case("IPv4 options: one longer than the header").enters(LAN1, options(&[7, 5, 4, 0])).is(MALFORMED).under(Options, MALFORMED);
    t.case("IPv4 options: one whose length is the first byte of TCP").enters(LAN1, options(&[1, 1, 1, 7])).is(MALFORMED).under(Options, MALFORMED);
    t.case("IPv4 options: more of them than are walked").enters(LAN1, options(&[1; 40])).is(IP_OPTIONS).under(Options, IP_OPTIONS);
    t.case("IPv4 options: twelve are walked").enters(LAN1, options(&[1; 12])).is(IP_OPTIONS).under(Options, RULE);

    // Options that read as a TCP header, SYN from 257 to 2575, where TCP starts without options.
    let disguise = [1, 1, 10, 15, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0];
    let disguised = |port| pump(Ipv4 { options: disguise.to_vec(), ..v4(syn(port)) });
    t.case("IPv4 options that are a header for an allowed port, before a forbidden one")
        .mirrors("ports read at a fixed offset behind IPv4 options")
        .enters(LAN1, disguised(23)).is(IP_OPTIONS).under(Options, NO_RULE);
    t.case("the same options before an allowed port").enters(LAN1, disguised(2575)).is(IP_OPTIONS).under(Options, RULE);
    t.case("IPv4 options of another zone, which drops them")
        .enters(LAN2, sent(&CAMERA, Ipv4 { options: vec![1; 4], ..Ipv4::new(CAMERA.v4, RECORDS.v4, syn(443)) }))
        .is(IP_OPTIONS).under(Options, IP_OPTIONS);
    t.case("IPv4 options do not hide a spoofed source")
        .enters(LAN1, pump(Ipv4 { options: vec![1; 4], ..Ipv4::new(CAMERA.v4, RECORDS.v4, syn(443)) }))
        .is(IP_OPTIONS).under(Options, SPOOFED_SOURCE);

    // Not IPv4 at all.
    t.case("IPv4 in LLC and SNAP").mirrors("IP in an 802.3 frame is not seen")
        .enters(LAN1, pump(snap(&hl7()))).is(UNKNOWN_ETHERTYPE);
}

/// The packet behind an 802.3 length and a SNAP header.
fn snap(packet: &Ipv4) -> Packet {
    let bytes = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], packet.bytes().as_slice()].concat();
    Packet::Bytes(bytes.len() as u16, bytes)
}
