//! Qdiscs, filters and XDP programs of interfaces, read and changed by netlink with the interface's
//! number; and the nftables chains that see forwarded packets.
//!
//! A request blocks until the kernel has answered. Its socket exists only for the request, and
//! belongs to the network namespace of the calling thread. Of objects that others have made, only
//! the fields needed are read: a filter of an unknown kind is still a filter.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL,
    NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, Nla as _, NlasIterator, Parseable as _, parse_string,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp},
    tc::{
        TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
        TcOption,
    },
};
use rtnetlink::sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE},
};

/// The kind of qdisc to which programs are attached where there is no TCX.
pub(crate) const CLSACT: &str = "clsact";

/// The direction of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Into the router.
    Ingress,
    /// Out of it.
    Egress,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    fn parent(self) -> TcHandle {
        let minor = match self {
            Self::Ingress => TcHandle::MIN_INGRESS,
            Self::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle {
            major: TcHandle::CLSACT.major,
            minor,
        }
    }
}

/// The position of a filter on its side: its number, and its priority, of which the lowest runs
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) priority: u16,
    pub(crate) handle: u32,
}

/// A filter, ours or another program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) place: Place,
    /// Its EtherType; `ETH_P_ALL`: any.
    pub(crate) protocol: u16,
    /// `bpf`, `flower` …
    pub(crate) kind: String,
    /// The name that it was created with.
    pub(crate) name: String,
    /// Id of its program; 0: none.
    pub(crate) program: u32,
}

/// An interface, as far as it matters for who else uses XDP there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// The interface below it, or of a veth its far end, if that is in this namespace.
    pub(crate) lower: Option<u32>,
    /// For tun and tap: whether each packet has a header of virtio before it.
    pub(crate) virtio: Option<bool>,
    /// The bridge or bond that it is a port of.
    pub(crate) controller: Option<u32>,
    /// Id of the XDP program in the driver.
    pub(crate) native: Option<u32>,
    /// Id of the XDP program in generic mode.
    pub(crate) generic: Option<u32>,
}

/// The kind of qdisc in the place of clsact, for interfaces that have one there.
pub(crate) fn qdiscs() -> io::Result<BTreeMap<u32, String>> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let mut qdiscs = BTreeMap::new();
    for answer in dump(request)? {
        let (header, kind, _) = read_tc(&answer)?;
        if header.parent == TcHandle::CLSACT {
            qdiscs.insert(header.index.cast_unsigned(), kind);
        }
    }
    Ok(qdiscs)
}

/// Creates the qdisc; an error of `AlreadyExists` when there is one, of any kind.
pub(crate) fn add_clsact(ifindex: u32) -> io::Result<()> {
    let mut message = clsact(ifindex);
    message
        .attributes
        .push(TcAttribute::Kind(CLSACT.to_owned()));
    let request = RouteNetlinkMessage::NewQueueDiscipline(message);
    ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
}

/// Removes the qdisc with all its filters.
pub(crate) fn remove_clsact(ifindex: u32) -> io::Result<()> {
    let request = RouteNetlinkMessage::DelQueueDiscipline(clsact(ifindex));
    ask(request, NLM_F_ACK).map(drop)
}

/// The filters of one side; none where there is no qdisc, or no such interface.
pub(crate) fn filters(ifindex: u32, side: Side) -> io::Result<Vec<Filter>> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = side.parent();
    let mut filters = Vec::new();
    for answer in dump(RouteNetlinkMessage::GetTrafficFilter(message))? {
        let (header, kind, options) = read_tc(&answer)?;
        let handle = u32::from(header.handle);
        // One message describes the priority itself.
        if handle == 0 {
            continue;
        }
        let mut filter = Filter {
            place: Place {
                priority: (header.info >> 16) as u16,
                handle,
            },
            protocol: u16::from_be(header.info as u16),
            kind,
            name: String::new(),
            program: 0,
        };
        if filter.kind == TcFilterBpf::KIND {
            for option in NlasIterator::new(&options).flatten() {
                match TcFilterBpfOption::parse(&option) {
                    Ok(TcFilterBpfOption::ProgName(name)) => filter.name = name,
                    Ok(TcFilterBpfOption::ProgId(id)) => filter.program = id,
                    _ => {}
                }
            }
        }
        filters.push(filter);
    }
    Ok(filters)
}

/// Puts a program in a place and replaces the one there; no packet passes unjudged meanwhile.
pub(crate) fn set_filter(
    ifindex: u32,
    side: Side,
    place: Place,
    program: BorrowedFd<'_>,
    name: &str,
) -> io::Result<()> {
    let mut message = filter(ifindex, side, place);
    let options = [
        TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned()),
        TcFilterBpfOption::ProgName(name.to_owned()),
        // The program's return code is the verdict.
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    message.attributes = vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()),
    ];
    let request = RouteNetlinkMessage::NewTrafficFilter(message);
    ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).map(drop)
}

/// Removes a filter.
pub(crate) fn remove_filter(ifindex: u32, side: Side, place: Place) -> io::Result<()> {
    let request = RouteNetlinkMessage::DelTrafficFilter(filter(ifindex, side, place));
    ask(request, NLM_F_ACK).map(drop)
}

/// All interfaces of the namespace.
pub(crate) fn devices() -> io::Result<Vec<Device>> {
    let mut devices = Vec::new();
    for answer in dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        let message = LinkMessage::parse(&answer).map_err(io::Error::other)?;
        let mut device = Device {
            index: message.header.index,
            ..Device::default()
        };
        let mut elsewhere = false;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name = name,
                LinkAttribute::Link(index) => device.lower = Some(index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::Controller(index) => device.controller = Some(index),
                LinkAttribute::LinkInfo(infos) => device.virtio = virtio(&infos),
                LinkAttribute::Xdp(programs) => {
                    for program in programs {
                        match program {
                            LinkXdp::DrvProgId(id) => device.native = Some(id),
                            LinkXdp::SkbProgId(id) => device.generic = Some(id),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if elsewhere {
            device.lower = None;
        }
        devices.push(device);
    }
    Ok(devices)
}

/// Takes an interface up or down.
pub(crate) fn set_up(ifindex: u32, up: bool) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.header.change_mask = LinkFlags::Up;
    if up {
        message.header.flags = LinkFlags::Up;
    }
    ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
}

/// Whether each packet of a tun or tap interface has a header of virtio before it.
fn virtio(infos: &[LinkInfo]) -> Option<bool> {
    /// `IFLA_TUN_VNET_HDR`.
    const VIRTIO: u16 = 5;
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Tun(data)) => Some(data),
        _ => None,
    })?;
    data.iter().find_map(|attribute| match attribute {
        InfoTun::Other(attribute) if attribute.kind() == VIRTIO => {
            let mut value = [0; 1];
            (attribute.value_len() == 1).then(|| attribute.emit_value(&mut value))?;
            Some(value[0] != 0)
        }
        _ => None,
    })
}

/// The kind of qdisc at the root of each interface that has one.
pub(crate) fn root_qdiscs() -> io::Result<BTreeMap<u32, String>> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let mut qdiscs = BTreeMap::new();
    for answer in dump(request)? {
        let (header, kind, _) = read_tc(&answer)?;
        if header.parent == TcHandle::ROOT {
            qdiscs.insert(header.index.cast_unsigned(), kind);
        }
    }
    Ok(qdiscs)
}

/// The nftables chains that see forwarded packets, as `table chain`: for IP those before routing,
/// on the way and after it, and all chains of interfaces.
pub(crate) fn chains() -> io::Result<Vec<String>> {
    const GET_CHAIN: u16 = 10 << 8 | 4;
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const HOOK_NUMBER: u16 = 1;
    let answers = match exchange(NETLINK_NETFILTER, GET_CHAIN, NLM_F_DUMP, &[0; 4]) {
        // The kernel has no netfilter, or no nftables.
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        answers => answers?,
    };
    let mut chains = Vec::new();
    for answer in answers {
        let Some((&[family, ..], attributes)) = answer.split_at_checked(4) else {
            continue;
        };
        let (mut names, mut hook) = ([String::new(), String::new()], None);
        for attribute in NlasIterator::new(attributes).flatten() {
            match attribute.kind() & NLA_TYPE {
                TABLE => names[0] = parse_string(attribute.value()).unwrap_or_default(),
                NAME => names[1] = parse_string(attribute.value()).unwrap_or_default(),
                HOOK => {
                    let numbers = NlasIterator::new(attribute.value()).flatten();
                    hook = numbers
                        .filter(|it| it.kind() & NLA_TYPE == HOOK_NUMBER)
                        .find_map(|it| Some(u32::from_be_bytes(it.value().try_into().ok()?)));
                }
                _ => {}
            }
        }
        // IPv4, IPv6 or both: all hooks but those for the router's own packets.
        let sees = match (family, hook) {
            (_, None) => false,
            (1 | 2 | 10, Some(hook)) => matches!(hook, 0 | 2 | 4),
            (5, Some(_)) => true,
            _ => false,
        };
        if sees {
            chains.push(names.join(" "));
        }
    }
    Ok(chains)
}

/// Whether frames may be sent through an interface from XDP, according to its driver.
pub(crate) fn sends_from_xdp(ifindex: u32) -> io::Result<bool> {
    const GET_FAMILY: [u8; 4] = [3, 1, 0, 0];
    const FAMILY_ID: u16 = 1;
    const FAMILY_NAME: u16 = 2;
    const GET_DEVICE: [u8; 4] = [1, 1, 0, 0];
    const IFINDEX: u16 = 1;
    const FEATURES: u16 = 3;
    const CONTROL: u16 = 16;
    /// `NETDEV_XDP_ACT_NDO_XMIT`.
    const SENDS: u64 = 4;
    let mut request = GET_FAMILY.to_vec();
    // "netdev" and its zero, padded.
    request.extend([11, 0, FAMILY_NAME as u8, 0]);
    request.extend(b"netdev\0\0");
    let answers = exchange(NETLINK_GENERIC, CONTROL, 0, &request)?;
    let value = |answer: &[u8], wanted: u16| {
        let attributes = answer.get(4..).unwrap_or_default();
        let mut attributes = NlasIterator::new(attributes).flatten();
        attributes
            .find(|it| it.kind() & NLA_TYPE == wanted)
            .map(|it| it.value().to_vec())
    };
    let family = answers.iter().find_map(|answer| value(answer, FAMILY_ID));
    let family = family.and_then(|it| Some(u16::from_ne_bytes(it.try_into().ok()?)));
    let family = family.ok_or(io::ErrorKind::Unsupported)?;
    let mut request = GET_DEVICE.to_vec();
    request.extend([8, 0, IFINDEX as u8, 0]);
    request.extend(ifindex.to_ne_bytes());
    let answers = exchange(NETLINK_GENERIC, family, 0, &request)?;
    let features = answers.iter().find_map(|answer| value(answer, FEATURES));
    let features = features.and_then(|it| Some(u64::from_ne_bytes(it.try_into().ok()?)));
    Ok(features.ok_or(io::ErrorKind::Unsupported)? & SENDS != 0)
}

/// Whether the kernel lacks the facility that was asked about.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EINVAL | libc::ENOENT)
    ) || error.kind() == io::ErrorKind::InvalidInput
}

/// The bits of an attribute's kind without the flags.
pub(crate) const NLA_TYPE: u16 = 0x3fff;

fn clsact(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.handle = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: 0,
    };
    message.header.parent = TcHandle::CLSACT;
    message
}

fn filter(ifindex: u32, side: Side, place: Place) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = side.parent();
    message.header.handle = place.handle.into();
    message.header.info =
        u32::from(place.priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    message
}

/// A message about a qdisc or filter: its header, kind and options.
fn read_tc(message: &[u8]) -> io::Result<(TcHeader, String, Vec<u8>)> {
    const HEADER: usize = 20;
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    let header = TcHeader::parse(message).map_err(io::Error::other)?;
    let (mut kind, mut options) = (String::new(), Vec::new());
    for attribute in NlasIterator::new(message.get(HEADER..).unwrap_or_default()).flatten() {
        match attribute.kind() {
            KIND => kind = parse_string(attribute.value()).map_err(io::Error::other)?,
            OPTIONS => options = attribute.value().to_vec(),
            _ => {}
        }
    }
    Ok((header, kind, options))
}

/// Requests a list.
fn dump(request: RouteNetlinkMessage) -> io::Result<Vec<Vec<u8>>> {
    // A list that changed while the kernel sent it is incomplete; such changes are rare.
    const ATTEMPTS: usize = 20;
    for _ in 1..ATTEMPTS {
        match ask(request.clone(), NLM_F_DUMP) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
    ask(request, NLM_F_DUMP)
}

/// Sends a request and returns the messages of the answer.
fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<Vec<u8>>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    send(NETLINK_ROUTE, &bytes)
}

/// Sends a request to a part of the kernel that none of our libraries supports, and returns the
/// messages of the answer.
pub(crate) fn exchange(
    protocol: isize,
    kind: u16,
    flags: u16,
    request: &[u8],
) -> io::Result<Vec<Vec<u8>>> {
    // struct nlmsghdr: length, type, flags, sequence, port.
    let mut bytes = Vec::with_capacity(16 + request.len());
    bytes.extend(((16 + request.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    // An answer of one message is followed by an acknowledgement, which ends it.
    let flags = NLM_F_REQUEST
        | flags
        | if flags & NLM_F_DUMP == 0 {
            NLM_F_ACK
        } else {
            0
        };
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(request);
    send(protocol, &bytes)
}

fn send(protocol: isize, bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let socket = Socket::new(protocol)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // Include the kernel's error text, and leave out our own request before it.
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    socket.send(bytes, 0)?;
    let mut answers = Vec::new();
    let mut whole = true;
    loop {
        let (received, _) = socket.recv_from_full()?;
        let mut rest = &received[..];
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
            whole &= message.flags() & NLM_F_DUMP_INTR == 0;
            match message.message_type() {
                NLMSG_DONE if whole => return Ok(answers),
                NLMSG_DONE => return Err(io::ErrorKind::Interrupted.into()),
                NLMSG_ERROR => {
                    let told = message.flags() & NLM_F_ACK_TLVS != 0;
                    return refusal(message.payload(), told).map_or(Ok(answers), Err);
                }
                _ => answers.push(message.payload().to_vec()),
            }
            let length = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// The error in an acknowledgement, with the kernel's own text if there is one.
fn refusal(payload: &[u8], told: bool) -> Option<io::Error> {
    /// The error's number, and the header of the request.
    const BEFORE_WORDS: usize = 4 + 16;
    const WORDS: u16 = 1;
    let code = ErrorBuffer::new_checked(payload).ok()?.code()?.get();
    let error = io::Error::from_raw_os_error(-code);
    let attributes = payload.get(BEFORE_WORDS..).filter(|_| told);
    let words = NlasIterator::new(attributes.unwrap_or_default())
        .flatten()
        .find(|attribute| attribute.kind() == WORDS);
    match words.and_then(|words| parse_string(words.value()).ok()) {
        Some(words) => Some(io::Error::new(error.kind(), format!("{words} ({error})"))),
        None => Some(error),
    }
}
