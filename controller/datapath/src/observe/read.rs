//! What the kernel's messages about links, addresses and routes say, as far as it matters here.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{
        InfoData, InfoKind, InfoVlan, InfoVrf, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
        LinkMessage, Prop,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use wardline_policy::{
    inventory::{Header, Link},
    words::mac::Mac,
};

/// The routes by which the router takes packets.
pub(super) const TAKEN: [(AddressFamily, RouteType); 4] = [
    (AddressFamily::Inet, RouteType::Local),
    (AddressFamily::Inet, RouteType::Broadcast),
    (AddressFamily::Inet6, RouteType::Local),
    (AddressFamily::Inet6, RouteType::Anycast),
];

/// The destination of a route by which the router takes packets itself.
pub(super) fn read_taken(message: &RouteMessage) -> Option<IpNet> {
    let header = &message.header;
    let kind = (header.address_family, header.kind);
    if !TAKEN.contains(&kind) {
        return None;
    }
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    let destination = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((*address).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some((*address).into()),
            _ => None,
        });
    let net = IpNet::new(
        destination.unwrap_or(unspecified),
        header.destination_prefix_length,
    );
    net.ok().filter(|net| !net.addr().is_loopback())
}

/// The broadcast address of an address's subnet. The broadcast of every link is nobody's subnet.
pub(super) fn read_broadcast(message: &AddressMessage) -> Option<IpNet> {
    let broadcast = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Broadcast(address) => Some(*address),
            _ => None,
        });
    broadcast
        .filter(|address| !address.is_broadcast() && !address.is_loopback())
        .map(|address| IpNet::from(IpAddr::from(address)))
}

/// The table of a VRF.
pub(super) fn vrf_table(message: &LinkMessage) -> Option<u32> {
    let infos = message.attributes.iter().filter_map(|it| match it {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vrf(data)) => data.iter().find_map(|it| match it {
            InfoVrf::TableId(table) => Some(*table),
            _ => None,
        }),
        _ => None,
    })
}

/// A link, unless it has no name.
pub(super) fn read_link(message: LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut mac = None;
    let mut permanent = None;
    let mut controller = None;
    let mut lower = None;
    let mut elsewhere = false;
    let mut vlan = None;
    let mut kind = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Address(bytes) => mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::PermAddress(bytes) => permanent = bytes.try_into().ok().map(Mac),
            LinkAttribute::Controller(index) => {
                controller = Some(index).filter(|&index| index != 0)
            }
            LinkAttribute::Link(index) => lower = Some(index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(of) => kind = Some(of),
                        LinkInfo::Data(InfoData::Vlan(data)) => {
                            vlan = data.iter().find_map(|data| match data {
                                InfoVlan::Id(id) => Some(*id),
                                _ => None,
                            });
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Link {
        number: message.header.index,
        ifindex: message.header.index,
        name: name?,
        mac,
        permanent,
        up: message.header.flags.contains(LinkFlags::Up),
        controller,
        parent: lower.filter(|_| kind.as_ref().is_some_and(takes_frames_as_they_are) && !elsewhere),
        vlan,
        kind: kind.map(|kind| kind.to_string()),
        header: header(message.header.link_layer_type),
    })
}

/// The alternative names of a link.
pub(super) fn read_alternatives(message: &LinkMessage) -> impl Iterator<Item = String> {
    let lists = message.attributes.iter().filter_map(|it| match it {
        LinkAttribute::PropList(properties) => Some(properties),
        _ => None,
    });
    lists.flatten().filter_map(|property| match property {
        Prop::AltIfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// What the packets of a link of this type begin with.
fn header(kind: LinkLayerType) -> Header {
    match kind {
        // The loopback has a header of Ethernet with zeros in it.
        LinkLayerType::Ether | LinkLayerType::Loopback => Header::Ethernet,
        LinkLayerType::None
        | LinkLayerType::Ppp
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit => Header::Bare,
        other => Header::Other(other.into()),
    }
}

/// Whether a link of this kind takes the frames of the link below as they are, or without their
/// VLAN tag. A tunnel or MACsec opens them: what is inside was not judged below. The link of a veth
/// is its other end, which is not below it.
fn takes_frames_as_they_are(kind: &InfoKind) -> bool {
    matches!(
        kind,
        InfoKind::Vlan
            | InfoKind::MacVlan
            | InfoKind::MacVtap
            | InfoKind::IpVlan
            | InfoKind::IpVtap
    )
}

/// The link's own address: on a point-to-point link the plain attribute is the other end's address.
pub(super) fn read_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut own = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => own = own.or(Some(*address)),
            _ => {}
        }
    }
    own.filter(|address| !address.is_loopback())
}

/// The link's own address, with the length of its network.
pub(super) fn read_own(message: &AddressMessage) -> Option<IpNet> {
    IpNet::new(read_address(message)?, message.header.prefix_len).ok()
}

/// The network of an address, which the router reaches directly; for an address with a peer, the
/// peer's. None for an address alone, and for link-local ones, which are in every network.
pub(super) fn read_network(message: &AddressMessage) -> Option<IpNet> {
    let address = message.attributes.iter().find_map(|it| match it {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    })?;
    let net = IpNet::new(address, message.header.prefix_len).ok()?;
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let alone = net.prefix_len() == net.max_prefix_len() && read_address(message) == Some(address);
    (!alone && !link_local && !address.is_loopback()).then(|| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vrf_has_a_table_of_its_own() {
        let mut message = LinkMessage::default();
        assert_eq!(vrf_table(&message), None);
        message.attributes = vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vrf),
            LinkInfo::Data(InfoData::Vrf(vec![InfoVrf::TableId(1000)])),
        ])];
        assert_eq!(vrf_table(&message), Some(1000));
    }

    #[test]
    fn a_vlan_has_an_id_and_a_lower_device() {
        // A message as the kernel sends it, because a test kernel may lack the module.
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.attributes = vec![
            LinkAttribute::IfName("lan1.20".to_owned()),
            LinkAttribute::Link(3),
            LinkAttribute::Controller(9),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(20)])),
            ]),
        ];
        let vlan = read_link(message.clone()).expect("a link");
        assert_eq!(
            (vlan.parent, vlan.vlan, vlan.controller),
            (Some(3), Some(20), Some(9))
        );
        message.attributes.push(LinkAttribute::LinkNetNsId(0));
        assert_eq!(
            read_link(message).and_then(|vlan| vlan.parent),
            None,
            "in another namespace"
        );
    }

    #[test]
    fn a_link_is_below_where_its_frames_go_on_as_they_are() {
        let below = |kind: InfoKind| {
            let mut message = LinkMessage::default();
            message.header.index = 7;
            message.attributes = vec![
                LinkAttribute::IfName("if7".to_owned()),
                LinkAttribute::Link(3),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
            ];
            read_link(message).and_then(|link| link.parent)
        };
        for kind in [
            InfoKind::MacVlan,
            InfoKind::MacVtap,
            InfoKind::IpVlan,
            InfoKind::IpVtap,
        ] {
            assert_eq!(below(kind), Some(3));
        }
        for kind in [
            InfoKind::Veth,
            InfoKind::MacSec,
            InfoKind::GreTun,
            InfoKind::Vxlan,
        ] {
            assert_eq!(below(kind), None);
        }
    }

    #[test]
    fn own_address_of_a_point_to_point_link_is_the_local_one() {
        let [own, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut message = AddressMessage::default();
        message.attributes = vec![
            AddressAttribute::Address(other),
            AddressAttribute::Local(own),
        ];
        assert_eq!(read_address(&message), Some(own));
        message.attributes.reverse();
        assert_eq!(read_address(&message), Some(own));
    }
}
