//! Bytes to [`Packet`]: the only code that reads headers.
//!
//! Parsing is strict: a packet that a later hop could read in another way is dropped, because such
//! packets bypass filters (ports read at a fixed offset behind options, later fragments taken for
//! first ones, extension headers skipped). Everything is parsed before policy is asked.

mod bare;
mod ipv4;
mod ipv6;
mod joined;
mod quoted;
mod transport;

pub use self::{
    bare::{Framed, Linked, bare},
    quoted::{Quoted, quoted},
    transport::{discovery_length, query_kind},
};
use self::{ipv4::ipv4, ipv6::ipv6, transport::transport};
use crate::{
    abi::{Address, Reason},
    cell::Cell32,
};

/// The source of a packet's bytes: the kernel's buffer, or a slice.
pub trait Bytes {
    /// The `N` bytes from `at`, if the packet has them and they can be read.
    fn read<const N: usize>(&self, at: usize) -> Option<&[u8; N]>;
    /// Length of the whole frame.
    fn len(&self) -> usize;
    /// Whether the stack has joined TCP segments to this frame, and will part them again. Nothing
    /// that comes from a wire is believed to be such a frame.
    fn is_joined(&self) -> bool {
        false
    }
    /// Whether it may be a packet without a link header.
    const MAY_BE_BARE: bool = true;
    /// The EtherType of a packet without a link header.
    fn protocol(&self) -> u16 {
        match self.read::<1>(0) {
            Some([start]) if start >> 4 == 4 => number::IPV4,
            Some([start]) if start >> 4 == 6 => number::IPV6,
            _ => 0,
        }
    }
    /// Whether there is no frame at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        if at > REACH {
            return None;
        }
        self.get(at..at + N)?.try_into().ok()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

/// A packet is read within this many bytes. The options of neighbour discovery may fill a packet of
/// 1500 bytes, behind Ethernet and tag; with extension headers it may be longer.
pub const REACH: usize = 1582;

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

/// The kind of a packet, as far as a judgement needs to know.
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
    /// A request that has an answer, matched by identifier: echo, timestamp and the like.
    Query,
    /// The answer to such a request.
    Answer,
    /// An ICMP or ICMPv6 error, which quotes a packet.
    Error,
    /// ICMPv6 neighbour discovery (RFC 4861): types 133 to 137; ICMP router discovery and redirect.
    Discovery,
    /// IGMP and MLD reports.
    Membership,
    /// IGMP and MLD queries, which a router or a switch in its place sends.
    MembershipQuery,
    /// Anything else on IP, without ports.
    Other,
    /// IPv6 from an IPv4-mapped address, which no host on a wire has (RFC 4291 section 2.5.5.2).
    Mapped,
    /// A later part of a fragmented packet, which does not say what kind of packet it is.
    Part,
}

/// Which part of a fragmented packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    /// The number that all parts of a packet share; with the addresses it identifies the packet.
    pub identification: u32,
    /// Offset of this part, in bytes.
    pub offset: u32,
    /// Offset of the next part.
    pub next: u32,
    /// Whether there is a next part.
    pub more: bool,
    /// Protocol of the payload, which every part states.
    pub protocol: u8,
}

impl Fragment {
    /// Whether it is the first of several parts.
    #[inline(always)]
    pub fn is_first(&self) -> bool {
        self.more && self.offset == 0
    }

    /// Notes a part with `length` bytes of payload; false when no packet can have such a part.
    #[inline(always)]
    pub(super) fn read(&mut self, offset: u32, more: bool, length: u32) -> bool {
        self.offset = offset;
        self.next = offset + length;
        self.more = more;
        length != 0 && !(more && length & 7 != 0) && self.next <= 0xffff
    }

    /// Whether the only purpose of a part can be to hide what the packet is: at an offset of eight
    /// bytes it overlaps the transport header (RFC 1858 section 4, RFC 3128).
    #[inline(always)]
    pub(super) fn hides(&self) -> bool {
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
    /// Whether a TCP segment carries data.
    pub data: bool,
    /// IPv4 time to live or IPv6 hop limit.
    pub hop_limit: u8,
    /// Source port, or a query's identifier.
    pub source_port: u16,
    /// Destination port, or a query's identifier.
    pub destination_port: u16,
    /// ICMP `type << 8 | code`.
    pub icmp: u16,
    /// Offset of the first byte after the Ethernet or IP headers.
    pub payload: u16,
    /// Offset of the end of the IP packet.
    pub end: u16,
    /// Which part, when it is one of several.
    pub fragment: Fragment,
    /// A fault of form that was found. Parsing goes on, because a worse one may follow.
    pub(super) pending_fault: Option<Reason>,
    /// Whether neighbour discovery names a link-layer address that is not the sender's.
    pub names_other_link: bool,
}

impl Packet {
    /// Notes a fault of form. Malformed is the worst, and ends the parsing. Extension headers
    /// outrank fragments; of all other faults only one can occur in a packet.
    #[inline(always)]
    pub(super) fn fault(&mut self, reason: Reason) -> Result<(), Reason> {
        if reason == Reason::Malformed {
            return Err(reason);
        }
        if self.pending_fault.is_none() || reason == Reason::ExtensionHeader {
            self.pending_fault = Some(reason);
        }
        Ok(())
    }

    /// The fault of form that was found.
    #[inline(always)]
    pub fn fault_of_form(&self) -> Option<Reason> {
        self.pending_fault
    }

    /// Whether it is a message of IGMP or MLD as its RFC has it: to a group, by the group's MAC, and
    /// to this link only (RFC 2236 section 2, RFC 3376 section 4, RFC 2710 section 3, RFC 3810
    /// section 5).
    #[inline(always)]
    pub fn is_membership_on_link(&self) -> bool {
        let [_, low] = self.destination.number();
        // RFC 1112 section 6.4, RFC 2464 section 7.
        let mac = if self.destination.is_v4() {
            0x0100_5e00_0000 | low & 0x7f_ffff
        } else {
            0x3333_0000_0000 | low & 0xffff_ffff
        };
        self.hop_limit == 1 && self.destination.is_group() && self.destination_mac == mac
    }

    /// Whether it is for several receivers: by its MAC, because a bridge then sends it out of
    /// several ports, or by its address, regardless of its MAC.
    #[inline(always)]
    pub fn is_to_group(&self) -> bool {
        self.destination_mac >> 40 & 1 == 1 || self.destination.is_group()
    }

    /// The service key that this packet asks for.
    #[inline(always)]
    pub fn service(&self) -> u32 {
        let low = match self.shape {
            Shape::Tcp | Shape::Udp => self.destination_port,
            // 0 for a packet that is not ICMP.
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
    // A group can't send (IEEE 802 section 8.2.2), and no interface has MAC zero.
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

/// Parses the header after Ethernet when it is IP or ARP; leaves other packets as they are.
///
/// `settings` are those of [`zone`](crate::abi::zone). `place` keeps offsets where the verifier
/// does not track them, because it would follow each path to them.
///
/// # Errors
///
/// The reason of form that the packet is dropped for, the worst of those that apply.
#[inline(always)]
pub fn network<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet,
    settings: u32,
    scratch: &Cell32,
) -> Result<(), Reason> {
    match packet.ethertype {
        number::IPV4 => ipv4(bytes, packet, settings, scratch)?,
        number::IPV6 => ipv6(bytes, packet, settings, scratch)?,
        number::ARP => return arp(bytes, packet),
        _ => return Ok(()),
    }
    // No host sends itself a packet over a wire (the "land" attack, CVE-1999-0016).
    if packet.source == packet.destination && !packet.source.is_unspecified()
        || packet.destination.is_martian_destination()
        || packet.source.is_odd_link_local()
        || packet.destination.is_odd_link_local()
    {
        return Err(Reason::Malformed);
    }
    if packet.fragment.offset != 0 {
        packet.shape = Shape::Part;
    } else {
        transport(bytes, packet)?;
    }
    // Every table would mistake such an address for an IPv4 address.
    let mapped = packet.ethertype == number::IPV6 && packet.source.is_v4();
    if mapped && packet.shape != Shape::Part {
        packet.shape = Shape::Mapped;
    }
    // A worse fault may stand in its options, which a later step reads.
    let has_options = packet.shape == Shape::Discovery && packet.ethertype == number::IPV6;
    match packet.pending_fault {
        Some(reason) if !has_options => Err(reason),
        _ => Ok(()),
    }
}

/// RFC 826, for IPv4 over Ethernet. The sender's address is stored as the source, the target's as
/// the destination.
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

/// A MAC as a number.
#[inline(always)]
pub fn mac(bytes: &[u8; 6]) -> u64 {
    u64::from_be_bytes([
        0, 0, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5],
    ])
}
