//! What a drop means and what helps, by its reason, in short sentences.
//!
//! `docs/reasons.md` says the same at more length.

use wardline_ebpf::abi::Reason;

/// What happened to a packet that was dropped for a reason.
pub fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRule => "No rule allows it.",
        Reason::DeniedByRule => "A rule denies it, and a deny rule wins over every allow rule.",
        Reason::Expired => "Every rule that would allow it has expired.",
        Reason::UnknownDevice => "The sender's MAC belongs to no device of the policy.",
        Reason::SpoofedSource => "The source address is not the sender's.",
        Reason::Misdirected => {
            "The frame goes to the MAC of one device, and its packet to the address of another."
        }
        Reason::WrongPort => "The device may not appear on this port.",
        Reason::WrongVlan => "The VLAN is not one of the port's, or not the device's.",
        Reason::Malformed => "A header is short, inconsistent or nonsense.",
        Reason::IpOptions => "It has IPv4 options, and the zone drops those.",
        Reason::Fragment => {
            "It is a fragment, and the zone drops those, or it follows no allowed first part."
        }
        Reason::ExtensionHeader => "It has an IPv6 extension header that the zone does not allow.",
        Reason::UnknownEthertype => {
            "The frame is neither IP nor ARP, and its protocol is not one of the zone's ethertypes."
        }
        Reason::MidFlow => {
            "It is the middle of a connection that the router does not know, or no longer."
        }
        Reason::BadTcpFlags => "It has TCP flags that no stack sends together.",
        Reason::ArpSpoof => "An ARP message claims an address that is not the sender's.",
        Reason::NdSpoof => {
            "A message of neighbour discovery claims an address that is not the sender's."
        }
        Reason::RogueRa => {
            "A router advertisement, a redirect or a query came from a port that may not send it."
        }
        Reason::RogueDhcp => {
            "A DHCP server's message came from a port that may not send it, or a client's message is \
             not about its sender."
        }
        Reason::Quarantined => "One end, or the port, is in quarantine.",
        Reason::FlowTableFull => "The table of flows has no room for it.",
        Reason::DeviceQuota => "The device has as many flows, or sends as much control, as it may.",
        Reason::NotReady => "No revision guards this interface yet.",
        Reason::Rule
        | Reason::Established
        | Reason::Related
        | Reason::Control
        | Reason::Observed => "It passed.",
    }
}

/// What helps against a drop for a reason.
pub fn cure(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRule => "If it is wanted, add an allow rule.",
        Reason::DeniedByRule => {
            "If it is wanted, narrow the deny rule; no allow rule can override it."
        }
        Reason::Expired => {
            "If it is wanted again, add a rule without an end, or grant it for another while."
        }
        Reason::UnknownDevice => {
            "If the sender belongs here, add it as a device with this MAC. A laptop with a random MAC \
             for each network needs that turned off."
        }
        Reason::SpoofedSource => {
            "Compare the source with the device's addresses (wardctl devices). List the address, or \
             list none of its family so that they are learned. If nobody knows of it, it may be an \
             attack."
        }
        Reason::Misdirected => {
            "Clear the sender's neighbour entry. If the device is a router for others, set router: true \
             on its port."
        }
        Reason::WrongPort => {
            "If the device was moved on purpose, change its port or zone. If not, find out who moved it."
        }
        Reason::WrongVlan => "Add the VLAN to the port, or set the switch port to the right VLAN.",
        Reason::Malformed => "Mend or update the sender; no setting allows it.",
        Reason::IpOptions | Reason::ExtensionHeader => {
            "If the devices need them, set ip_options: allow on the zone. Source routes and routing \
             headers stay forbidden."
        }
        Reason::Fragment => {
            "Lower the sender's MTU or the size of its datagrams; otherwise set fragments: allow on the \
             zone."
        }
        Reason::UnknownEthertype => {
            "If the zone needs the protocol, list it in its ethertypes. LLC and spanning tree can't be \
             allowed."
        }
        Reason::MidFlow => {
            "The client connects again by itself. For connections with long silence use keep-alives, or \
             raise timeouts.tcp_established. Both directions must go through the router."
        }
        Reason::BadTcpFlags => "Find out what runs on the device; no setting allows it.",
        Reason::ArpSpoof | Reason::NdSpoof => {
            "Look for two devices with one address, or a device with an old one; then correct its \
             addresses in the policy."
        }
        Reason::RogueRa => {
            "If a router or a querier belongs there, set router: true on the port; if not, unplug it."
        }
        Reason::RogueDhcp => {
            "If the DHCP server belongs there, set dhcp_server: true on the port; if not, unplug it."
        }
        Reason::Quarantined => {
            "When it is clean, release it: wardctl release DEVICE --reason TEXT."
        }
        Reason::FlowTableFull => "Raise limits.flows.",
        Reason::DeviceQuota => {
            "Find out what the device does. If it is right, raise limits.flows_per_device or \
             limits.control."
        }
        Reason::NotReady => "It lasts for moments. If it stays, restart wardlined and report it.",
        Reason::Rule
        | Reason::Established
        | Reason::Related
        | Reason::Control
        | Reason::Observed => "Nothing is wrong.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_whole_sentences() {
        for reason in Reason::ALL {
            for text in [meaning(reason), cure(reason)] {
                assert!(text.ends_with('.') && text.len() < 200, "{text}");
            }
        }
    }
}
