//! What a frame says, read byte by byte from the contract and the RFCs.
//!
//! It shares no code with the data path's parser: two readers that agree on a million frames are
//! right, or wrong in the same way. Nothing here knows a policy: whether options or fragments may
//! pass is for the oracle, which is told that they are there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::link::is_odd;

pub type Mac = [u8; 6];

/// A header is short, inconsistent or nonsense, so that what follows means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A frame that can be read down to the addresses of its packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub destination: Mac,
    pub source: Mac,
    /// 0: untagged.
    pub vlan: u16,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// None: its header is short or not for IPv4 over Ethernet.
    Arp(Option<Arp>),
    Ip(Ip),
    /// EtherType, or the length of an LLC frame, below 0x0600; a further tag among them.
    Other(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    pub operation: u16,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target: Ipv4Addr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Whether it is to its own sender, or to an unspecified, loopback or IPv4-mapped address, or
    /// names a link-local one that no host has.
    pub nowhere: bool,
    /// The link that it is on, which its link-local addresses say too; 0: not known.
    pub link: u32,
    pub hop_limit: u8,
    /// What IPv4 options there are; none: the header has five words.
    pub options: Option<Options>,
    /// IPv6 extension headers in their order, fragment headers among them.
    pub extensions: Vec<Extension>,
    pub fragment: Option<Fragment>,
    /// The protocol of what follows all IP headers.
    pub protocol: u8,
    pub upper: Upper,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Kinds in their order, padding and all.
    pub kinds: Vec<u8>,
    /// Nothing but a router alert, without padding.
    pub alert: bool,
    /// An option's length goes beyond the header.
    pub lies: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    pub number: u8,
    /// Nothing but a router alert and padding (RFC 2711).
    pub alert: bool,
}

/// A piece of a packet; bytes, not units of eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub offset: u32,
    pub length: u32,
    pub more: bool,
    pub identification: u32,
}

impl Fragment {
    /// Whether it is a whole packet with a fragment header.
    pub fn is_atomic(self) -> bool {
        self.offset == 0 && !self.more
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upper {
    Tcp {
        from: u16,
        to: u16,
        flags: u8,
        /// Whether anything follows the header.
        data: bool,
    },
    Udp {
        from: u16,
        to: u16,
        data: Vec<u8>,
    },
    /// ICMP or ICMPv6, as the protocol says. The body is what follows the checksum.
    Icmp {
        kind: u8,
        code: u8,
        body: Vec<u8>,
    },
    /// Any other protocol.
    Opaque(Vec<u8>),
    /// A later fragment's bytes.
    Hidden,
    /// The first fragment ends within the header.
    Cut,
    /// The header is short, inconsistent or nonsense.
    Broken,
}

/// Bytes that are taken from the front.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("as many as were asked for"))
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }
}

fn must(holds: bool) -> Result<(), Malformed> {
    if holds { Ok(()) } else { Err(Malformed) }
}

/// Reads a frame. `tag` is what the interface took out of it: EtherType and control.
pub fn frame(bytes: &[u8], tag: Option<u16>) -> Result<Frame, Malformed> {
    let mut reader = Reader(bytes);
    let destination: Mac = reader.array()?;
    let source: Mac = reader.array()?;
    // Neither a group (IEEE 802.3, 3.2.3) nor the zero MAC can send.
    must(source[0] & 1 == 0 && source != [0; 6])?;
    let mut ethertype = reader.u16()?;
    let mut vlan = tag.map(|control| control & 0xfff);
    if ethertype == 0x8100 {
        // A second tag counts as the frame's EtherType, and no address is read behind it.
        if vlan.is_none() {
            vlan = Some(reader.u16()? & 0xfff);
            ethertype = reader.u16()?;
        }
    }
    // Reserved (IEEE 802.1Q, table 9-2).
    must(vlan != Some(0xfff))?;
    let content = match ethertype {
        0x0800 => Content::Ip(ipv4(reader)?),
        0x86dd => Content::Ip(ipv6(reader)?),
        0x0806 => Content::Arp(arp(reader).ok()),
        other => Content::Other(other),
    };
    Ok(Frame {
        destination,
        source,
        vlan: vlan.unwrap_or(0),
        content,
    })
}

/// The VLAN of a frame; 0 when it has no tag. None when its Ethernet header is malformed.
pub fn vlan(bytes: &[u8], tag: Option<u16>) -> Option<u16> {
    let header = bytes.first_chunk::<14>()?;
    let source = &header[6..12];
    let vlan = match (tag, &header[12..]) {
        (Some(control), _) => control,
        (None, [0x81, 0x00]) => {
            let tag = bytes.get(14..18)?;
            u16::from_be_bytes([tag[0], tag[1]])
        }
        (None, _) => 0,
    };
    (source[0] & 1 == 0 && source != [0; 6] && vlan & 0xfff != 0xfff).then_some(vlan & 0xfff)
}

/// RFC 826, for IPv4 over Ethernet.
fn arp(mut reader: Reader<'_>) -> Result<Arp, Malformed> {
    must(reader.u16()? == 1)?;
    must(reader.u16()? == 0x0800)?;
    must(reader.array()? == [6, 4])?;
    let operation = reader.u16()?;
    must(matches!(operation, 1 | 2))?;
    let sender_mac = reader.array()?;
    let sender = Ipv4Addr::from(reader.array::<4>()?);
    let _: Mac = reader.array()?;
    let target = Ipv4Addr::from(reader.array::<4>()?);
    Ok(Arp {
        operation,
        sender_mac,
        sender,
        target,
    })
}

/// RFC 791.
fn ipv4(mut reader: Reader<'_>) -> Result<Ip, Malformed> {
    let whole = reader.0;
    let first = reader.u8()?;
    must(first >> 4 == 4)?;
    let header = usize::from(first & 15) * 4;
    must(header >= 20)?;
    reader.u8()?;
    let total = usize::from(reader.u16()?);
    must(total >= header && total <= whole.len())?;
    let identification = u32::from(reader.u16()?);
    let fragment = reader.u16()?;
    let hop_limit = reader.u8()?;
    let protocol = reader.u8()?;
    reader.u16()?;
    let source = Ipv4Addr::from(reader.array::<4>()?);
    let destination = Ipv4Addr::from(reader.array::<4>()?);
    let options = (header > 20).then(|| options(&whole[20..header]));
    let payload = &whole[header..total];

    let more = fragment & 0x2000 != 0;
    let offset = u32::from(fragment & 0x1fff) * 8;
    let fragment = (more || offset > 0).then_some(Fragment {
        offset,
        length: payload.len() as u32,
        more,
        identification,
    });
    Ok(Ip {
        source: source.into(),
        destination: destination.into(),
        nowhere: nowhere(source.into(), destination.into()),
        link: 0,
        hop_limit,
        options,
        extensions: Vec::new(),
        fragment,
        protocol,
        upper: upper(4, protocol, payload, fragment),
    })
}

/// RFC 791, 3.1: a kind alone, or with a length that counts both.
fn options(mut bytes: &[u8]) -> Options {
    let all = bytes;
    let mut kinds = Vec::new();
    let mut lies = false;
    while let Some((&kind, rest)) = bytes.split_first() {
        bytes = match kind {
            // The end of the list counts as one of them: what has more is dropped.
            0 => {
                kinds.push(kind);
                &[]
            }
            1 => {
                kinds.push(kind);
                rest
            }
            _ => {
                kinds.push(kind);
                match rest.first() {
                    Some(&length) if length >= 2 && usize::from(length) <= bytes.len() => {
                        &bytes[usize::from(length)..]
                    }
                    _ => {
                        lies = true;
                        &[]
                    }
                }
            }
        };
    }
    let alert = all == [148, 4, 0, 0];
    Options { kinds, alert, lies }
}

/// How many extension headers a packet may have; what more there is is not read.
pub const MAX_EXTENSIONS: usize = 6;

/// RFC 8200.
fn ipv6(mut reader: Reader<'_>) -> Result<Ip, Malformed> {
    must(reader.u32()? >> 28 == 6)?;
    let length = usize::from(reader.u16()?);
    let mut next = reader.u8()?;
    let hop_limit = reader.u8()?;
    let source = Ipv6Addr::from(reader.array::<16>()?);
    let destination = Ipv6Addr::from(reader.array::<16>()?);
    let mut payload = Reader(reader.take(length)?);

    let mut extensions = Vec::new();
    let mut fragment: Option<Fragment> = None;
    let mut broken = None;
    while is_extension(next) {
        // What follows a later fragment's header is not a header.
        if fragment.is_some_and(|fragment| fragment.offset > 0) {
            break;
        }
        let number = next;
        // Experimental headers have no known form, and no packet needs so many headers.
        if matches!(number, 253 | 254) || extensions.len() == MAX_EXTENSIONS {
            let alert = false;
            extensions.push(Extension { number, alert });
            broken = Some(Upper::Opaque(payload.0.to_vec()));
            break;
        }
        let whole = payload.0;
        let header = || -> Result<(u8, &[u8]), Malformed> {
            let mut reader = Reader(whole);
            let next = reader.u8()?;
            let measure = usize::from(reader.u8()?);
            let length = match number {
                44 => 8,
                51 => (measure + 2) * 4,
                _ => (measure + 1) * 8,
            };
            Ok((next, Reader(whole).take(length)?))
        };
        let (following, bytes) = match header() {
            Ok(header) => header,
            Err(_) => {
                let alert = false;
                extensions.push(Extension { number, alert });
                // A first fragment may end within its headers: they are cut off, not inconsistent.
                let is_first = fragment.is_some_and(|fragment| fragment.more);
                broken = Some(if is_first { Upper::Cut } else { Upper::Broken });
                break;
            }
        };
        payload.take(bytes.len())?;
        next = following;
        let alert = number == 0
            && bytes.len() == 8
            && bytes[2..4] == [5, 2]
            && matches!(bytes[6..], [0, 0] | [1, 0]);
        extensions.push(Extension { number, alert });
        if number == 44 {
            let mut reader = Reader(&bytes[2..]);
            let field = reader.u16()?;
            fragment = Some(Fragment {
                offset: u32::from(field & 0xfff8),
                length: payload.0.len() as u32,
                more: field & 1 != 0,
                identification: reader.u32()?,
            });
        }
    }
    Ok(Ip {
        source: source.into(),
        destination: destination.into(),
        nowhere: nowhere(source.into(), destination.into()),
        link: 0,
        hop_limit,
        options: None,
        extensions,
        fragment,
        protocol: next,
        upper: broken.unwrap_or_else(|| upper(6, next, payload.0, fragment)),
    })
}

/// IANA's list of extension headers, but for ESP, behind which nothing can be read.
fn is_extension(number: u8) -> bool {
    matches!(number, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 | 253 | 254)
}

fn nowhere(source: IpAddr, destination: IpAddr) -> bool {
    // IPv4-mapped addresses are not sent (RFC 4291, 2.5.5.2).
    let is_mapped = matches!(destination, IpAddr::V6(it) if it.to_ipv4_mapped().is_some());
    let odd = is_odd(source) || is_odd(destination);
    let own = source == destination;
    own || destination.is_unspecified() || destination.is_loopback() || is_mapped || odd
}

fn upper(version: u8, protocol: u8, payload: &[u8], fragment: Option<Fragment>) -> Upper {
    if fragment.is_some_and(|fragment| fragment.offset > 0) {
        return Upper::Hidden;
    }
    let is_first = fragment.is_some_and(|fragment| fragment.more);
    let needs = match (version, protocol) {
        // Each family has its own ICMP.
        (6, 1) | (4, 58) => return Upper::Broken,
        (_, 6) => payload
            .get(12)
            .map_or(20, |byte| usize::from(byte >> 4) * 4)
            .max(20),
        (_, 17) | (4, 1 | 2) | (6, 58) => 8,
        _ => 0,
    };
    if payload.len() < needs {
        // A first fragment may be too short for its header; any other packet is broken.
        return if is_first { Upper::Cut } else { Upper::Broken };
    }
    let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    match protocol {
        6 if payload[12] >> 4 < 5 => Upper::Broken,
        6 => Upper::Tcp {
            from: port(0),
            to: port(2),
            flags: payload[13],
            data: payload.len() > usize::from(payload[12] >> 4) * 4,
        },
        17 => {
            let length = usize::from(port(4));
            let lies = if is_first {
                length < payload.len()
            } else {
                length != payload.len()
            };
            if lies {
                Upper::Broken
            } else {
                Upper::Udp {
                    from: port(0),
                    to: port(2),
                    data: payload[8..].to_vec(),
                }
            }
        }
        1 | 58 => Upper::Icmp {
            kind: payload[0],
            code: payload[1],
            body: payload[4..].to_vec(),
        },
        _ => Upper::Opaque(payload.to_vec()),
    }
}

/// The packet that an ICMP error quotes, of which it may be only the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub asks: QuotedUpper,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotedUpper {
    Ports(u16, u16),
    Icmp { kind: u8, code: u8, identifier: u16 },
    Other,
}

/// Reads the packet in the body of an ICMP error; none when its flow can't be told.
pub fn quoted(version: u8, body: &[u8]) -> Option<Quoted> {
    let bytes = body.get(4..)?;
    let (source, destination, protocol, upper): (IpAddr, IpAddr, u8, &[u8]) = if version == 4 {
        let header = usize::from(bytes.first()? & 15) * 4;
        let fragment = u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]) & 0x1fff;
        if bytes[0] >> 4 != 4 || header < 20 || bytes.len() < header || fragment != 0 {
            return None;
        }
        let address = |at: usize| -> IpAddr {
            Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]).into()
        };
        (address(12), address(16), bytes[9], &bytes[header..])
    } else {
        if bytes.len() < 40 || bytes[0] >> 4 != 6 {
            return None;
        }
        let address = |at: usize| -> IpAddr {
            let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("sixteen bytes");
            Ipv6Addr::from(octets).into()
        };
        (address(8), address(24), bytes[6], &bytes[40..])
    };
    // RFC 792: the header and eight bytes.
    if upper.len() < 8 {
        return None;
    }
    let number = |at: usize| Some(u16::from_be_bytes([*upper.get(at)?, *upper.get(at + 1)?]));
    let asks = match protocol {
        6 | 17 => QuotedUpper::Ports(number(0)?, number(2)?),
        1 | 58 => QuotedUpper::Icmp {
            kind: *upper.first()?,
            code: *upper.get(1)?,
            identifier: number(4)?,
        },
        _ => QuotedUpper::Other,
    };
    Some(Quoted {
        source,
        destination,
        protocol,
        asks,
    })
}

/// Options of neighbour discovery (RFC 4861, 4.6): kind and bytes; none when a length is wrong.
pub fn discovery_options(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut options = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(*bytes.get(1)?) * 8;
        if length == 0 || length > bytes.len() {
            return None;
        }
        let (option, rest) = bytes.split_at(length);
        options.push((option[0], &option[2..]));
        bytes = rest;
    }
    Some(options)
}
