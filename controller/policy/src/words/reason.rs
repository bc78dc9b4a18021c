//! Reasons of verdicts, as people read them.

use wardline_ebpf::abi::Reason;

/// A reason as people read it: `no_rule`. The names are those of the interface.
pub fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRule => "no_rule",
        Reason::DeniedByRule => "denied_by_rule",
        Reason::Expired => "expired",
        Reason::UnknownDevice => "unknown_device",
        Reason::SpoofedSource => "spoofed_source",
        Reason::WrongPort => "wrong_port",
        Reason::WrongVlan => "wrong_vlan",
        Reason::Malformed => "malformed",
        Reason::IpOptions => "ip_options",
        Reason::Fragment => "fragment",
        Reason::ExtensionHeader => "extension_header",
        Reason::UnknownEthertype => "unknown_ethertype",
        Reason::MidFlow => "mid_flow",
        Reason::BadTcpFlags => "bad_tcp_flags",
        Reason::ArpSpoof => "arp_spoof",
        Reason::NdSpoof => "nd_spoof",
        Reason::RogueRa => "rogue_ra",
        Reason::RogueDhcp => "rogue_dhcp",
        Reason::Quarantined => "quarantined",
        Reason::FlowTableFull => "flow_table_full",
        Reason::DeviceQuota => "device_quota",
        Reason::NotReady => "not_ready",
        Reason::Misdirected => "misdirected",
        Reason::Rule => "rule",
        Reason::Established => "established",
        Reason::Related => "related",
        Reason::Control => "control",
        Reason::Observed => "observed",
    }
}
