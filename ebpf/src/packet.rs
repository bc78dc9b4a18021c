//! Bytes to [`Packet`]: the only code that reads headers.
//!
//! Strict: whatever a later hop could read otherwise than we do is refused, because that is how
//! filters are bypassed (ports read at a fixed offset behind options, later fragments taken for
//! first ones, extension headers skipped). Everything is parsed before any policy is asked.

use crate::{
    abi::{Address, Reason, zone},
    cell::Cell32,
};

/// Where a packet's bytes come from: the kernel's buffer, or a slice.
pub trait Bytes {
    /// The `N` bytes from `at`, if the packet has them and they can be read.
    fn read<const N: usize>(&self, at: usize) -> Option<&[u8; N]>;
    /// Length of the whole frame.
    fn len(&self) -> usize;
    /// Whether there is no frame at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        self.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

/// Headers are looked for in this many bytes; a kernel-side reader must make them readable.
pub const REACH: usize = 512;

/// EtherTypes and IP protocols, by their usual names.
pub mod number {
    #![expect(missing_docs, reason = "the registries' own names")]
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
    pub const EAPOL: u16 = 0x888e;
    pub const ICMP: u8 = 1;
    pub const IGMP: u8 = 2;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
}

/// TCP flags.
pub mod tcp {
    #![expect(missing_docs, reason = "RFC 9293 section 3.1")]
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
    pub const URG: u8 = 32;
}

/// What a packet is, as far as judging it goes.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shape {
    /// Not IP: ARP, EAPOL or whatever the EtherType says.
    #[default]
    Frame,
    /// TCP, with its flags.
    Tcp,
    /// UDP.
    Udp,
    /// A request that has an answer, told apart by identifier: echo, timestamp and the like.
    Query,
    /// The answer to such a request.
    Answer,
    /// An ICMP or ICMPv6 error, which quotes a packet.
    Error,
    /// ICMPv6 neighbour discovery (RFC 4861): types 133 to 137; ICMP router discovery and redirect.
    Discovery,
    /// IGMP and MLD reports.
    Membership,
    /// Anything else on IP, without ports.
    Other,
    /// IPv6 from an IPv4-mapped address, which no host on a wire has (RFC 4291 section 2.5.5.2).
    Mapped,
    /// A later part of a fragmented packet, which says nothing of what the packet is.
    Part,
}

/// Which part of a fragmented packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    /// What all parts of the packet have in common, with its addresses.
    pub identification: u32,
    /// Offset of this part, in bytes.
    pub offset: u32,
    /// Offset of the next part.
    pub next: u32,
    /// Whether there is a next part.
    pub more: bool,
    /// What the parts carry, as all of them say.
    pub protocol: u8,
}

impl Fragment {
    /// Whether it is the first of several parts.
    #[inline(always)]
    pub fn is_first(&self) -> bool {
        self.more && self.offset == 0
    }

    /// Notes a part, with `length` bytes that are there of it; false when it can't be of a packet.
    #[inline(always)]
    fn read(&mut self, offset: u32, more: bool, length: u32) -> bool {
        self.offset = offset;
        self.next = offset + length;
        self.more = more;
        length != 0 && !(more && length & 7 != 0) && self.next <= 0xffff
    }

    /// Whether a part only hides what the packet is: an offset of eight bytes overlaps a transport
    /// header (RFC 1858 section 4, RFC 3128).
    #[inline(always)]
    fn hides(&self) -> bool {
        self.offset == 8
    }
}

/// A parsed packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    /// Source address; unspecified when it is not IP.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source MAC.
    pub source_mac: u64,
    /// Destination MAC.
    pub destination_mac: u64,
    /// Length of the frame.
    pub length: u32,
    /// What it is.
    pub shape: Shape,
    /// EtherType, behind the tag.
    pub ethertype: u16,
    /// VLAN; 0: untagged, or a priority tag.
    pub vlan: u16,
    /// IP protocol.
    pub protocol: u8,
    /// TCP flags.
    pub flags: u8,
    /// IPv4 time to live or IPv6 hop limit.
    pub hop_limit: u8,
    /// Source port, or a query's identifier.
    pub source_port: u16,
    /// Destination port, or a query's identifier.
    pub destination_port: u16,
    /// ICMP `type << 8 | code`.
    pub icmp: u16,
    /// Offset of what follows the Ethernet or IP headers.
    pub payload: u16,
    /// Offset of the end of the IP packet.
    pub end: u16,
    /// Which part, when it is one of several.
    pub fragment: Fragment,
    /// A fault of form; parsing goes on, because a worse one may follow.
    held: Option<Reason>,
}

impl Packet {
    /// Notes a fault of form. Being malformed is the worst; extension headers come before
    /// fragments, and of the rest only one can be met before the end.
    #[inline(always)]
    fn fault(&mut self, reason: Reason) -> Result<(), Reason> {
        if reason == Reason::Malformed {
            return Err(reason);
        }
        if self.held.is_none() || reason == Reason::ExtensionHeader {
            self.held = Some(reason);
        }
        Ok(())
    }

    /// Whether it is for several receivers: by its MAC, for which a bridge sends it out of more than
    /// one port, or by its address, whatever MAC it was sent to.
    #[inline(always)]
    pub fn is_to_group(&self) -> bool {
        self.destination_mac >> 40 & 1 == 1 || self.destination.is_group()
    }

    /// What the interval table calls the service that this packet asks for.
    #[inline(always)]
    pub fn service(&self) -> u32 {
        let low = match self.shape {
            Shape::Tcp | Shape::Udp => self.destination_port,
            // 0 for what is not ICMP.
            _ => self.icmp,
        };
        (self.protocol as u32) << 16 | low as u32
    }
}

/// Parses the Ethernet header.
///
/// `tag` is the VLAN tag that the kernel took out of the frame (TC), as the frame would have it.
///
/// # Errors
///
/// [`Reason::Malformed`] for a frame without a header and for a source that can't be one.
#[inline(always)]
pub fn ethernet<B: Bytes + ?Sized>(
    bytes: &B,
    tag: Option<u16>,
    packet: &mut Packet,
) -> Result<(), Reason> {
    *packet = Packet {
        length: bytes.len() as u32,
        ..Packet::default()
    };
    let Some(header) = bytes.read::<14>(0) else {
        return Err(Reason::Malformed);
    };
    packet.destination_mac = mac(&[
        header[0], header[1], header[2], header[3], header[4], header[5],
    ]);
    packet.source_mac = mac(&[
        header[6], header[7], header[8], header[9], header[10], header[11],
    ]);
    packet.ethertype = u16::from_be_bytes([header[12], header[13]]);
    packet.payload = 14;
    // A group can't send (IEEE 802 section 8.2.2), and zero is nobody.
    if packet.source_mac == 0 || packet.source_mac >> 40 & 1 == 1 {
        return Err(Reason::Malformed);
    }
    match tag {
        Some(tag) => packet.vlan = tag & 0xfff,
        None if packet.ethertype == number::VLAN => {
            let Some(tag) = bytes.read::<4>(14) else {
                return Err(Reason::Malformed);
            };
            packet.vlan = u16::from_be_bytes([tag[0], tag[1]]) & 0xfff;
            packet.ethertype = u16::from_be_bytes([tag[2], tag[3]]);
            packet.payload = 18;
        }
        None => {}
    }
    // 4095 is reserved (IEEE 802.1Q table 9-2).
    if packet.vlan == 0xfff {
        Err(Reason::Malformed)
    } else {
        Ok(())
    }
}

/// Parses what follows the Ethernet header, when it is IP or ARP; leaves other packets as they are.
///
/// `settings` are those of [`zone`]. `place` is where offsets are kept from the verifier, which
/// would go on with each way to them by itself.
///
/// # Errors
///
/// The reason of form that the packet is dropped for, the worst of those that apply.
#[inline(always)]
pub fn network<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet,
    settings: u32,
    place: &Cell32,
) -> Result<(), Reason> {
    match packet.ethertype {
        number::IPV4 => ipv4(bytes, packet, settings, place)?,
        number::IPV6 => ipv6(bytes, packet, settings, place)?,
        number::ARP => return arp(bytes, packet),
        _ => return Ok(()),
    }
    // A packet to oneself never has reason to leave (the "land" attack, CVE-1999-0016).
    if packet.source == packet.destination && !packet.source.is_unspecified()
        || packet.destination.is_martian_destination()
    {
        return Err(Reason::Malformed);
    }
    if packet.fragment.offset != 0 {
        packet.shape = Shape::Part;
    } else {
        transport(bytes, packet)?;
    }
    // They would be taken for IPv4 addresses by everything that looks them up.
    let mapped = packet.ethertype == number::IPV6 && packet.source.is_v4();
    if mapped && packet.shape != Shape::Part {
        packet.shape = Shape::Mapped;
    }
    match packet.held {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

/// RFC 826, for IPv4 over Ethernet. Who claims and who is asked for are noted as source and
/// destination.
#[inline(always)]
fn arp<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let Some(arp) = bytes.read::<28>(packet.payload as usize) else {
        return Err(Reason::Malformed);
    };
    // Ethernet, IPv4, six and four bytes, request or reply.
    let fixed = u64::from_be_bytes([
        arp[0], arp[1], arp[2], arp[3], arp[4], arp[5], arp[6], arp[7],
    ]);
    if fixed != 0x0001_0800_0604_0001 && fixed != 0x0001_0800_0604_0002 {
        return Err(Reason::Malformed);
    }
    packet.source = Address::v4([arp[14], arp[15], arp[16], arp[17]]);
    packet.destination = Address::v4([arp[24], arp[25], arp[26], arp[27]]);
    Ok(())
}

/// RFC 791.
#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet,
    settings: u32,
    place: &Cell32,
) -> Result<(), Reason> {
    let at = packet.payload as usize;
    let Some(header) = bytes.read::<20>(at) else {
        return Err(Reason::Malformed);
    };
    let header_length = ((header[0] & 0xf) as usize) << 2;
    let total_length = u16::from_be_bytes([header[2], header[3]]) as usize;
    if header[0] >> 4 != 4
        || header_length < 20
        || total_length < header_length
        || at + total_length > bytes.len()
    {
        return Err(Reason::Malformed);
    }
    packet.protocol = header[9];
    packet.hop_limit = header[8];
    packet.source = Address::v4([header[12], header[13], header[14], header[15]]);
    packet.destination = Address::v4([header[16], header[17], header[18], header[19]]);
    packet.payload = (at + header_length) as u16;
    packet.end = (at + total_length) as u16;
    let part = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    let identification = u16::from_be_bytes([header[4], header[5]]);
    if header_length > 20 {
        options(bytes, packet, at + 20, header_length - 20, settings, place)?;
    }
    if part == 0 {
        return Ok(());
    }
    packet.fragment.identification = identification as u32;
    packet.fragment.protocol = packet.protocol;
    let length = (total_length - header_length) as u32;
    let more = part & 0x2000 != 0;
    let offset = (part as u32 & 0x1fff) << 3;
    let whole = packet.fragment.read(offset, more, length);
    // Where fragments are dropped, each is one, whatever it holds.
    let allowed = settings & zone::FRAGMENTS != 0;
    if allowed && !whole {
        return Err(Reason::Malformed);
    }
    if !allowed || packet.fragment.hides() {
        return packet.fault(Reason::Fragment);
    }
    Ok(())
}

/// IPv4 options: the router alert of a membership report always; others as the zone says, but a
/// source route never (RFC 7126 sections 4.3 and 4.4).
#[inline(always)]
fn options<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet,
    at: usize,
    length: usize,
    settings: u32,
    place: &Cell32,
) -> Result<(), Reason> {
    if packet.protocol == number::IGMP && length == 4 {
        let Some(alert) = bytes.read::<4>(at) else {
            return Err(Reason::Malformed);
        };
        if *alert == [0x94, 4, 0, 0] {
            return Ok(());
        }
    }
    let mut refused = settings & zone::IP_OPTIONS == 0;
    place.store(0);
    for _ in 0..OPTIONS {
        let offset = (place.load() & 63) as usize;
        if offset >= length {
            break;
        }
        let Some(kind) = bytes.read::<1>(at + offset) else {
            return Err(Reason::Malformed);
        };
        match kind[0] {
            0 => {
                place.store(63);
                break;
            }
            1 => place.store(offset as u32 + 1),
            kind => {
                let Some(size) = bytes.read::<1>(at + offset + 1) else {
                    return Err(Reason::Malformed);
                };
                let size = size[0] as usize;
                if size < 2 || offset + size > length {
                    return Err(Reason::Malformed);
                }
                // Loose and strict source route, and the stream identifier that nobody uses.
                refused |= matches!(kind, 131 | 137 | 136);
                place.store((offset + size) as u32);
            }
        }
    }
    if refused || (place.load() as usize) < length {
        return packet.fault(Reason::IpOptions);
    }
    Ok(())
}

/// IPv4 options that are walked before a packet is refused, padding counted.
const OPTIONS: usize = 16;

/// Extension headers that are walked before a packet is refused.
const EXTENSIONS: usize = 6;

/// RFC 8200.
#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet,
    settings: u32,
    place: &Cell32,
) -> Result<(), Reason> {
    let at = packet.payload as usize;
    let Some(header) = bytes.read::<40>(at) else {
        return Err(Reason::Malformed);
    };
    let length = u16::from_be_bytes([header[4], header[5]]) as usize;
    if header[0] >> 4 != 6 || at + 40 + length > bytes.len() {
        return Err(Reason::Malformed);
    }
    let mut next = header[6];
    packet.hop_limit = header[7];
    packet.source = Address([word(header, 8), word(header, 16)]);
    packet.destination = Address([word(header, 24), word(header, 32)]);
    packet.end = (at + 40 + length) as u16;
    if packet.destination.is_v4() {
        return Err(Reason::Malformed);
    }
    place.store(at as u32 + 40);
    let allowed = settings & zone::IP_OPTIONS != 0;
    let mut extensions = 0usize;
    let mut alert = false;
    let mut refused = false;
    let mut fragmented = false;
    for position in 0..EXTENSIONS {
        // Hop-by-hop options, destination options, routing, fragment, authentication, mobility,
        // host identity, shim6. The experimental ones have no known form.
        if !matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
            break;
        }
        let offset = place.load() as usize;
        let start = bytes.read::<8>(offset);
        let size = start.map_or(u16::MAX as usize, |start| match next {
            44 => 8,
            // RFC 4302 section 2.2.
            51 => (start[1] as usize + 2) << 2,
            _ => (start[1] as usize + 1) << 3,
        });
        let Some(start) = start.filter(|_| offset + size <= packet.end as usize) else {
            if !packet.fragment.is_first() {
                return Err(Reason::Malformed);
            }
            // A first part may end within its headers: nothing lies, but it must hold them (RFC 7112).
            if refused || !allowed || !matches!(next, 51 | 60) {
                packet.fault(Reason::ExtensionHeader)?;
            }
            return packet.fault(Reason::Fragment);
        };
        place.store((offset + size) as u32);
        match next {
            44 => {
                let part = u16::from_be_bytes([start[2], start[3]]);
                packet.fragment.identification =
                    u32::from_be_bytes([start[4], start[5], start[6], start[7]]);
                packet.fragment.protocol = start[0];
                // An atomic fragment is a fragment.
                if settings & zone::FRAGMENTS == 0 {
                    packet.fault(Reason::Fragment)?;
                }
                refused |= fragmented;
                fragmented = true;
                next = start[0];
                // The whole packet as its only part.
                if part & 0xfff9 == 0 {
                    continue;
                }
                let length = packet.end as u32 - offset as u32 - 8;
                let more = part & 1 != 0;
                let whole = packet.fragment.read(part as u32 & 0xfff8, more, length);
                if !whole && settings & zone::FRAGMENTS != 0 {
                    return Err(Reason::Malformed);
                }
                if packet.fragment.hides() {
                    packet.fault(Reason::Fragment)?;
                }
                if packet.fragment.offset != 0 {
                    // What a later part begins with is no header.
                    break;
                }
                continue;
            }
            0 => {
                refused |= position != 0;
                // The router alert option and padding, and no more (RFC 2711, RFC 3810 section 5).
                alert = start[1] == 0
                    && matches!(
                        (start[2], start[3], start[6], start[7]),
                        (5, 2, 0, 0) | (5, 2, 1, 0)
                    );
            }
            51 | 60 => {}
            // Routing (type 0 is RFC 5095's, the others steer packets around us) and the rest.
            _ => refused = true,
        }
        next = start[0];
        extensions += 1;
    }
    packet.protocol = next;
    packet.payload = place.load() as u16;
    // Still not at a transport header: the chain is longer than anyone needs, or unknown.
    refused |= packet.fragment.offset == 0
        && matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 | 253 | 254);
    if refused || extensions > 1 && !allowed {
        return packet.fault(Reason::ExtensionHeader);
    }
    if extensions == 1 && !allowed {
        if alert && next == number::ICMPV6 {
            // Only membership messages may carry it; `transport` tells them apart.
            packet.flags = MEMBERSHIP_ONLY;
            return Ok(());
        }
        return packet.fault(Reason::ExtensionHeader);
    }
    Ok(())
}

/// In [`Packet::flags`] between `ipv6` and `transport`.
const MEMBERSHIP_ONLY: u8 = 1;

/// The transport header, which must be there whole.
#[inline(always)]
fn transport<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<(), Reason> {
    let at = packet.payload as usize;
    let length = packet.end as usize - at;
    let v4 = packet.ethertype == number::IPV4;
    let first = packet.fragment.is_first();
    // A first part without the whole header would leave the rest of it to a later one (RFC 7112).
    let short = if first {
        Reason::Fragment
    } else {
        Reason::Malformed
    };
    let membership_only = packet.flags == MEMBERSHIP_ONLY;
    packet.flags = 0;
    match packet.protocol {
        number::TCP => {
            let Some(header) = bytes.read::<20>(at) else {
                return packet.fault(short);
            };
            if length < 20 {
                return packet.fault(short);
            }
            let header_length = ((header[12] >> 4) as usize) << 2;
            if header_length < 20 {
                return Err(Reason::Malformed);
            }
            if header_length > length {
                return packet.fault(short);
            }
            packet.shape = Shape::Tcp;
            ports(packet, [header[0], header[1], header[2], header[3]]);
            packet.flags = header[13];
            if !valid_tcp_flags(packet.flags) {
                return packet.fault(Reason::BadTcpFlags);
            }
        }
        number::UDP => {
            let Some(header) = bytes.read::<8>(at) else {
                return packet.fault(short);
            };
            if length < 8 {
                return packet.fault(short);
            }
            let whole = u16::from_be_bytes([header[4], header[5]]) as usize;
            if if first {
                whole < length
            } else {
                whole != length
            } {
                return Err(Reason::Malformed);
            }
            packet.shape = Shape::Udp;
            ports(packet, [header[0], header[1], header[2], header[3]]);
        }
        number::ICMP | number::ICMPV6 if v4 != (packet.protocol == number::ICMP) => {
            return Err(Reason::Malformed);
        }
        number::ICMP | number::ICMPV6 => {
            let Some(header) = bytes.read::<8>(at) else {
                return packet.fault(short);
            };
            if length < 8 {
                return packet.fault(short);
            }
            packet.icmp = u16::from_be_bytes([header[0], header[1]]);
            packet.shape = if v4 {
                icmpv4_shape(header[0], header[1])
            } else {
                icmpv6_shape(header[0], header[1])
            };
            match packet.shape {
                Shape::Query | Shape::Answer => {
                    ports(packet, [header[4], header[5], header[4], header[5]]);
                }
                // What has no identifier is told apart by its type and code.
                Shape::Other => {
                    packet.source_port = packet.icmp;
                    packet.destination_port = packet.icmp;
                }
                Shape::Discovery if !v4 => discovery(bytes, packet, header[0])?,
                _ => {}
            }
            if membership_only && packet.shape != Shape::Membership {
                packet.fault(Reason::ExtensionHeader)?;
            }
        }
        number::IGMP if v4 => {
            let Some(header) = bytes.read::<8>(at) else {
                return packet.fault(short);
            };
            if length < 8 {
                return packet.fault(short);
            }
            // Reports of versions 1, 2 and 3, and leave (RFC 3376 section 4).
            let report = matches!(header[0], 0x12 | 0x16 | 0x17 | 0x22);
            packet.shape = if report {
                Shape::Membership
            } else {
                Shape::Other
            };
        }
        _ => packet.shape = Shape::Other,
    }
    // Neither discovery (RFC 6980) nor errors and reports, which are small, come in parts.
    let whole = matches!(
        packet.shape,
        Shape::Error | Shape::Discovery | Shape::Membership
    );
    if whole && first {
        packet.fault(Reason::Fragment)?;
    }
    Ok(())
}

/// Options that neighbour discovery may carry here before it is refused.
pub const DISCOVERY_OPTIONS: usize = 6;

/// Where a message of neighbour discovery ends and its options begin, from the start of its ICMPv6
/// header (RFC 4861 section 4).
#[inline(always)]
pub fn discovery_length(kind: u8) -> usize {
    match kind {
        133 => 8,
        134 => 16,
        137 => 40,
        _ => 24,
    }
}

/// Neighbour discovery: the message is there whole, and its options fill the rest.
#[inline(always)]
fn discovery<B: Bytes + ?Sized>(bytes: &B, packet: &Packet, kind: u8) -> Result<(), Reason> {
    let mut at = packet.payload as usize + discovery_length(kind);
    for _ in 0..DISCOVERY_OPTIONS {
        if at == packet.end as usize {
            return Ok(());
        }
        // The shortest option has eight bytes.
        let Some(option) = bytes.read::<8>(at) else {
            return Err(Reason::Malformed);
        };
        if option[1] == 0 {
            return Err(Reason::Malformed);
        }
        at += (option[1] as usize) << 3;
    }
    if at == packet.end as usize {
        Ok(())
    } else {
        Err(Reason::Malformed)
    }
}

/// RFC 792, RFC 1256, RFC 950.
#[inline(always)]
fn icmpv4_shape(kind: u8, code: u8) -> Shape {
    match kind {
        8 | 13 | 15 | 17 if code == 0 => Shape::Query,
        0 | 14 | 16 | 18 if code == 0 => Shape::Answer,
        3 | 4 | 11 | 12 => Shape::Error,
        5 | 9 => Shape::Discovery,
        _ => Shape::Other,
    }
}

/// RFC 4443, RFC 4861, RFC 2710, RFC 3810.
#[inline(always)]
fn icmpv6_shape(kind: u8, code: u8) -> Shape {
    match kind {
        128 if code == 0 => Shape::Query,
        129 if code == 0 => Shape::Answer,
        1..=4 => Shape::Error,
        133..=137 => Shape::Discovery,
        131 | 132 | 143 => Shape::Membership,
        _ => Shape::Other,
    }
}

/// The kind that tells apart flows of queries with the same identifier: the request's type.
#[inline(always)]
pub fn query_kind(packet: &Packet) -> u8 {
    request(packet.shape, (packet.icmp >> 8) as u8)
}

/// The type of the request that a query is, or that an answer is to: one less, except echo's.
#[inline(always)]
fn request(shape: Shape, kind: u8) -> u8 {
    match shape {
        Shape::Query => kind,
        Shape::Answer if kind == 0 => 8,
        Shape::Answer => kind.wrapping_sub(1),
        _ => 0,
    }
}

/// The packet that an ICMP error quotes, as far as it must be there to find its flow: both
/// addresses and eight bytes of the transport header (RFC 792, RFC 4443 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// Its source address.
    pub source: Address,
    /// Its destination address.
    pub destination: Address,
    /// Its protocol.
    pub protocol: u8,
    /// Its source port, or a query's identifier.
    pub source_port: u16,
    /// Its destination port, or a query's identifier.
    pub destination_port: u16,
    /// [`query_kind`].
    pub kind: u8,
    /// Whether it is the answer to a query.
    pub answers: bool,
}

/// Reads what an ICMP error quotes; nothing when it can't be matched to a flow with certainty.
#[inline(always)]
pub fn quoted<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> Option<Quoted> {
    let at = packet.payload as usize + 8;
    let v4 = packet.ethertype == number::IPV4;
    let (source, destination, protocol, payload) = if v4 {
        let header = bytes.read::<20>(at)?;
        let header_length = ((header[0] & 0xf) as usize) << 2;
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
        if header[0] >> 4 != 4 || header_length < 20 || fragment != 0 {
            return None;
        }
        let source = Address::v4([header[12], header[13], header[14], header[15]]);
        let destination = Address::v4([header[16], header[17], header[18], header[19]]);
        (source, destination, header[9], at + header_length)
    } else {
        let header = bytes.read::<40>(at)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let source = Address([word(header, 8), word(header, 16)]);
        let destination = Address([word(header, 24), word(header, 32)]);
        (source, destination, header[6], at + 40)
    };
    let transport = bytes.read::<8>(payload)?;
    if payload + 8 > packet.end as usize {
        return None;
    }
    let pair = |i: usize| u16::from_be_bytes([transport[i], transport[i + 1]]);
    let mut quoted = Quoted {
        source,
        destination,
        protocol,
        source_port: 0,
        destination_port: 0,
        kind: 0,
        answers: false,
    };
    match protocol {
        number::TCP | number::UDP => {
            quoted.source_port = pair(0);
            quoted.destination_port = pair(2);
        }
        number::ICMP | number::ICMPV6 => {
            let (kind, code) = (transport[0], transport[1]);
            let shape = if v4 {
                icmpv4_shape(kind, code)
            } else {
                icmpv6_shape(kind, code)
            };
            if !matches!(shape, Shape::Query | Shape::Answer) {
                return None;
            }
            quoted.source_port = pair(4);
            quoted.destination_port = pair(4);
            quoted.kind = request(shape, kind);
            quoted.answers = shape == Shape::Answer;
        }
        _ => {}
    }
    Some(quoted)
}

/// The combinations that a TCP stack sends, leaving PSH, ECE and CWR aside.
#[inline(always)]
fn valid_tcp_flags(flags: u8) -> bool {
    use tcp::{ACK, FIN, RST, SYN, URG};
    const SYN_ACK: u8 = SYN | ACK;
    const SYN_URG: u8 = SYN | URG;
    const RST_ACK: u8 = RST | ACK;
    const FIN_ACK: u8 = FIN | ACK;
    const FIN_ACK_URG: u8 = FIN | ACK | URG;
    const ACK_URG: u8 = ACK | URG;
    matches!(
        flags & (FIN | SYN | RST | ACK | URG),
        SYN | SYN_URG | SYN_ACK | RST | RST_ACK | FIN_ACK | FIN_ACK_URG | ACK | ACK_URG
    )
}

#[inline(always)]
fn ports(packet: &mut Packet, bytes: [u8; 4]) {
    packet.source_port = u16::from_be_bytes([bytes[0], bytes[1]]);
    packet.destination_port = u16::from_be_bytes([bytes[2], bytes[3]]);
}

/// A MAC as a number.
#[inline(always)]
pub fn mac(bytes: &[u8; 6]) -> u64 {
    u64::from_be_bytes([
        0, 0, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5],
    ])
}

/// The word at a constant offset of a header.
#[inline(always)]
fn word(header: &[u8; 40], at: usize) -> u64 {
    u64::from_ne_bytes([
        header[at],
        header[at + 1],
        header[at + 2],
        header[at + 3],
        header[at + 4],
        header[at + 5],
        header[at + 6],
        header[at + 7],
    ])
}
