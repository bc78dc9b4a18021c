//! Guards of ARP, neighbour discovery, DHCP and membership reports: what a device may send without
//! a rule, and what it may not.
//!
//! A claim that an address is at a MAC must be the sender's own. Messages that only a router or a
//! DHCP server sends must come from a port that allows them.

use crate::{
    abi::{Address, End, Learned, Mac, Port, ROUTER, Reason, holder, mac_key},
    lookup::Lookup,
    packet::{Bytes, Packet, Shape, mac},
    policy,
};

/// The sender of a packet, as far as MAC, port and VLAN tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sender {
    /// The slot of the revision that judges.
    pub slot: u32,
    /// The device; 0: an unlisted MAC in a zone that admits any.
    pub device: u32,
    /// The zone of the port's VLAN, which is the device's.
    pub zone: u16,
    /// [`End`] flags of the device.
    pub flags: u16,
    /// Whether the packet's source is known to be the sender's address.
    pub owns: bool,
    /// [`Port`] flags of the port.
    pub port: u16,
    /// The MAC.
    pub mac: u64,
    /// The link, as [`Port::link`].
    pub link: u32,
    /// The current tick.
    pub tick: u32,
}

impl Sender {
    /// Whether it may take free addresses of this one's family.
    #[inline(always)]
    fn learns(&self, address: &Address) -> bool {
        self.device == 0 || self.flags & End::learns(address) != 0
    }

    /// Whether it has learned an address.
    #[inline(always)]
    fn holds(&self, learned: &Learned) -> bool {
        learned.holder.load() == holder(self.device, self.mac)
    }
}

/// Whether the sender may send from an address; sets `end` to what the address stands for.
///
/// A device may use its listed addresses. One that lists none of a family, and an unlisted MAC, may
/// take free addresses of the zone; everyone may take free link-local ones. Then this notes the address in `claim`, and
/// [`learn`](crate::decide::learn()) decides. A packet claims one address.
#[inline(always)]
pub fn owns<T: Lookup + ?Sized>(
    tables: &T,
    sender: &Sender,
    address: &Address,
    end: &mut End,
    claim: &mut Address,
) -> bool {
    if !policy::end(tables, sender.slot, address, end) || end.is_router() {
        return false;
    }
    let link_local = address.is_link_local();
    let learned = if link_local || sender.learns(address) {
        tables.learned(address)
    } else {
        None
    };
    if end.device == sender.device
        && let Some(learned) = learned
        && sender.holds(learned)
    {
        learned.last.store(sender.tick);
        if link_local {
            // Where an unlisted MAC is now.
            learned.zone.store(sender.zone as u32);
            end.zone = sender.zone;
        }
        return end.zone == sender.zone;
    }
    if end.device == sender.device && sender.device != 0 {
        return true;
    }
    // What another device lists is never free; what it has learned may be.
    let listed = end.device != 0 && learned.is_none();
    let may_take = link_local
        || sender.learns(address) && policy::is_in(tables, sender.slot, end, sender.zone, address);
    if !may_take || listed {
        return false;
    }
    let another = !claim.is_unspecified() && claim != address;
    *claim = *address;
    !another
}

/// Whether an address is the sender's, or could become its own: the same as [`owns`], but nothing
/// is claimed, and another's address is never free.
#[inline(always)]
pub fn may_own<T: Lookup + ?Sized>(
    tables: &T,
    sender: &Sender,
    address: &Address,
    end: &mut End,
) -> bool {
    if !policy::end(tables, sender.slot, address, end) || end.is_router() {
        return false;
    }
    if end.device != 0 {
        return end.device == sender.device;
    }
    policy::is_in(tables, sender.slot, end, sender.zone, address)
        && sender.learns(address)
        && tables.learned(address).is_none_or(|it| sender.holds(it))
}

/// Whether the sender may learn an address, as far as the address goes: it is in its zone's subnets, in a
/// family that the sender lists no address of, and not the router's. Sets `end` to what it stands for.
#[inline(always)]
pub fn may_learn<T: Lookup + ?Sized>(
    tables: &T,
    sender: &Sender,
    address: &Address,
    end: &mut End,
) -> bool {
    policy::end(tables, sender.slot, address, end)
        && !end.is_router()
        && !address.is_link_local()
        && !address.is_unspecified()
        && !address.is_martian_source()
        && sender.learns(address)
        && policy::is_in(tables, sender.slot, end, sender.zone, address)
}

/// Whether an address is one of the router's own; `end` is scratch memory.
#[inline(always)]
pub fn is_the_routers<T: Lookup + ?Sized>(
    tables: &T,
    slot: u32,
    address: &Address,
    end: &mut End,
) -> bool {
    policy::end(tables, slot, address, end) && end.is_router()
}

/// ARP from a device (RFC 826, RFC 5227).
#[inline(always)]
pub fn arp<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    packet: &Packet,
    sender: &Sender,
    end: &mut End,
    taken: &mut Address,
) -> Result<(), Reason> {
    arp_claim(bytes, packet)?;
    let claim = packet.source;
    // A probe does not claim an address.
    if claim.is_unspecified() {
        return Ok(());
    }
    if claim.is_martian_source() || !owns(tables, sender, &claim, end, taken) {
        return Err(Reason::ArpSpoof);
    }
    Ok(())
}

/// Checks that an ARP packet claims its address for the MAC that sent it, not for another.
///
/// # Errors
///
/// [`Reason::ArpSpoof`].
#[inline(always)]
pub fn arp_claim<B: Bytes + ?Sized>(bytes: &B, packet: &Packet) -> Result<(), Reason> {
    match bytes.read::<6>(packet.payload as usize + 8) {
        Some(sender) if mac(sender) == packet.source_mac => Ok(()),
        _ => Err(Reason::ArpSpoof),
    }
}

/// Control messages, which a device may send without a rule; no answer when policy has to judge.
///
/// The caller has checked that the source address is the device's own or unspecified.
#[inline(always)]
pub fn control<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    packet: &Packet,
    sender: &Sender,
    end: &mut End,
    claim: &mut Address,
) -> Option<Result<(), Reason>> {
    match packet.shape {
        Shape::Membership => packet.is_membership_on_link().then_some(Ok(())),
        Shape::MembershipQuery if sender.port & Port::ROUTER == 0 => Some(Err(Reason::RogueRa)),
        Shape::MembershipQuery => packet.is_membership_on_link().then_some(Ok(())),
        Shape::Discovery => {
            let kind = packet.icmp >> 8;
            let routers = packet.source.is_v4() || kind == 134 || kind == 137;
            let far = !routers
                && (is_far(tables, packet, sender, end)
                    || is_to_be_routed(tables, packet, sender, end));
            // A neighbour may be in another zone, on the same bridge. A message to a host in no
            // zone is not neighbour discovery, and no rule can allow it either.
            if far {
                None
            } else {
                Some(discovery(bytes, tables, packet, sender, end, claim))
            }
        }
        // A client renews its lease with its server, which is in the network. Towards any other
        // host such a message could bypass all rules.
        Shape::Udp if asks_dhcp(packet) && is_far(tables, packet, sender, end) => None,
        Shape::Udp => dhcp(bytes, tables, packet, sender, end, claim),
        _ => None,
    }
}

/// Whether a packet is for a single host that is neither in a zone (or a prefix of several zones),
/// nor the router, nor link-local.
#[inline(always)]
fn is_far<T: Lookup + ?Sized>(tables: &T, packet: &Packet, sender: &Sender, end: &mut End) -> bool {
    !packet.destination.is_group()
        && !packet.destination.is_link_local()
        && (!policy::end(tables, sender.slot, &packet.destination, end)
            || end.zone == 0 && end.flags & End::SHARED == 0 && !end.is_router())
}

/// Whether the router would forward a packet to a single host: it has one of the router's MACs, and
/// another's address.
#[inline(always)]
fn is_to_be_routed<T: Lookup + ?Sized>(
    tables: &T,
    packet: &Packet,
    sender: &Sender,
    end: &mut End,
) -> bool {
    is_routers_mac(tables, sender.slot, packet.destination_mac)
        && !packet.destination.is_group()
        && !packet.destination.is_link_local()
        && !is_the_routers(tables, sender.slot, &packet.destination, end)
}

/// Whether a datagram is from a DHCP client's port to a server's, for its family.
#[inline(always)]
pub fn asks_dhcp(packet: &Packet) -> bool {
    let ports = if packet.source.is_v4() {
        (68, 67)
    } else {
        (546, 547)
    };
    (packet.source_port, packet.destination_port) == ports
}

/// Neighbour discovery (RFC 4861), and ICMP router discovery and redirects.
#[inline(always)]
fn discovery<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    packet: &Packet,
    sender: &Sender,
    end: &mut End,
    claim: &mut Address,
) -> Result<(), Reason> {
    let kind = (packet.icmp >> 8) as u8;
    let from_router = if sender.port & Port::ROUTER != 0 {
        Ok(())
    } else {
        Err(Reason::RogueRa)
    };
    if packet.source.is_v4() {
        return if packet.source.is_unspecified() {
            Err(Reason::SpoofedSource)
        } else {
            from_router
        };
    }
    // Only solicitations may come from a host without an address (RFC 4861 section 4).
    if packet.source.is_unspecified() && kind != 133 && kind != 135 {
        return Err(Reason::SpoofedSource);
    }
    // A packet with a lower hop limit has passed a router (RFC 4861 section 7.1).
    if packet.hop_limit != 255 || packet.icmp & 0xff != 0 {
        return Err(Reason::NdSpoof);
    }
    // A solicitation for a tentative address, and an advertisement, claim the target.
    if kind == 136 || kind == 135 && packet.source.is_unspecified() {
        let Some(target) = bytes.read::<16>(packet.payload as usize + 8) else {
            return Err(Reason::Malformed);
        };
        let target = Address::v6(target);
        let none = target.is_group() || target.is_odd_link_local();
        if none || !owns(tables, sender, &target.on_link(sender.link), end, claim) {
            return Err(Reason::NdSpoof);
        }
    }
    if packet.names_other_link {
        return Err(Reason::NdSpoof);
    }
    if kind == 134 || kind == 137 {
        from_router
    } else {
        Ok(())
    }
}

/// DHCP of either family. A message that only resembles a client's is left to policy.
#[inline(always)]
fn dhcp<B: Bytes + ?Sized, T: Lookup + ?Sized>(
    bytes: &B,
    tables: &T,
    packet: &Packet,
    sender: &Sender,
    end: &mut End,
    claim: &mut Address,
) -> Option<Result<(), Reason>> {
    let v4 = packet.source.is_v4();
    let (client, server) = if v4 { (68, 67) } else { (546, 547) };
    // Only DHCPv4 clients have no address yet.
    let nobody = packet.source.is_unspecified();
    // A server answers the router, when that relays for clients (RFC 2131 section 4.1, RFC 8415
    // section 19.3).
    if (packet.source_port, packet.destination_port) == (server, server)
        && sender.port & Port::DHCP_SERVER != 0
        && !nobody
        && is_the_routers(tables, sender.slot, &packet.destination, end)
    {
        return Some(Ok(()));
    }
    // Clients accept whatever arrives on their port.
    if packet.destination_port == client {
        if nobody {
            return Some(Err(Reason::SpoofedSource));
        }
        let allowed = sender.port & Port::DHCP_SERVER != 0;
        return Some(if allowed {
            Ok(())
        } else {
            Err(Reason::RogueDhcp)
        });
    }
    if packet.destination_port != server || packet.source_port != client || nobody && !v4 {
        return None;
    }
    let at = packet.payload as usize + 8;
    if !v4 {
        // Solicit, request, confirm, renew, rebind, release, decline, information request
        // (RFC 8415 section 7.3).
        let kind = bytes.read::<4>(at)?[0];
        return matches!(kind, 1 | 3 | 4 | 5 | 6 | 8 | 9 | 11).then_some(Ok(()));
    }
    // A request of an Ethernet client (RFC 2131 section 2).
    let start = bytes.read::<34>(at)?;
    if start[0] != 1 || start[1] != 1 || start[2] != 6 {
        return None;
    }
    let hardware = mac(&[
        start[28], start[29], start[30], start[31], start[32], start[33],
    ]);
    let address = Address::v4([start[12], start[13], start[14], start[15]]);
    let relay = u32::from_ne_bytes([start[24], start[25], start[26], start[27]]);
    // It must ask for itself: for its own MAC, about its own address, and not as a relay, to which
    // the server would send the answer.
    let own = hardware == packet.source_mac
        && relay == 0
        && (address.is_unspecified()
            || address == packet.source
            || owns(tables, sender, &address, end, claim));
    Some(if own { Ok(()) } else { Err(Reason::RogueDhcp) })
}

/// Whether one of the router's interfaces has a MAC.
#[inline(always)]
pub fn is_routers_mac<T: Lookup + ?Sized>(tables: &T, slot: u32, mac: u64) -> bool {
    match tables.mac(mac_key(slot, mac)) {
        Some(mac) => mac.device == ROUTER || mac.flags & Mac::ROUTERS != 0,
        None => false,
    }
}

/// Whether a packet is a message of IGMP or MLD about who is in which group.
#[inline(always)]
pub fn is_membership(packet: &Packet) -> bool {
    matches!(packet.shape, Shape::Membership | Shape::MembershipQuery)
}

/// Whether a packet is of a kind that guards judge where it enters.
#[inline(always)]
pub fn is_control(packet: &Packet) -> bool {
    match packet.shape {
        Shape::Frame | Shape::Membership | Shape::MembershipQuery | Shape::Discovery => true,
        Shape::Udp => {
            matches!(
                (packet.source_port, packet.destination_port),
                (67 | 68, 67 | 68)
            ) || matches!(
                (packet.source_port, packet.destination_port),
                (546 | 547, 546 | 547)
            )
        }
        _ => false,
    }
}
