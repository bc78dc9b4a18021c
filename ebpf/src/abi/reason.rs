//! Why a packet passed or was dropped.

/// Why a packet passed or was dropped. The numbers are those of the proto.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// No rule allows it.
    NoRule = 1,
    /// A rule denies it.
    DeniedByRule = 2,
    /// Every rule that would allow it has expired.
    Expired = 3,
    /// The source MAC belongs to no device.
    UnknownDevice = 4,
    /// The source address is not the device's.
    SpoofedSource = 5,
    /// The device may not appear on this port.
    WrongPort = 6,
    /// The VLAN is not one of the port's, or not the device's.
    WrongVlan = 7,
    /// A header is short, inconsistent or nonsense.
    Malformed = 8,
    /// IPv4 options in a zone that drops them.
    IpOptions = 9,
    /// A fragment in a zone that drops them, or one that can't be judged.
    Fragment = 10,
    /// An IPv6 extension header that is not allowed.
    ExtensionHeader = 11,
    /// Neither IP, ARP nor one of the zone's ethertypes.
    UnknownEthertype = 12,
    /// The packet belongs to no admitted flow, and can't open one.
    MidFlow = 13,
    /// A combination of TCP flags that no stack sends.
    BadTcpFlags = 14,
    /// An ARP claim that is not the device's.
    ArpSpoof = 15,
    /// An ND claim that is not the device's.
    NdSpoof = 16,
    /// A router advertisement or redirect from a port that may not send them.
    RogueRa = 17,
    /// A DHCP server message from a port that may not send them.
    RogueDhcp = 18,
    /// An end is in quarantine.
    Quarantined = 19,
    /// The flow table is full.
    FlowTableFull = 20,
    /// The device has as many flows open as it may have.
    DeviceQuota = 21,
    /// No policy has taken force on this port.
    NotReady = 22,
    /// The destination MAC is one device's, the destination address another's.
    Misdirected = 23,
    /// A rule allows the flow that this packet opens.
    Rule = 32,
    /// Part of an admitted flow.
    Established = 33,
    /// An ICMP error about an admitted flow.
    Related = 34,
    /// ARP, ND, DHCP and the like, within the device's own bounds.
    Control = 35,
    /// Passed only because the zones are in mode observe.
    Observed = 36,
}

impl Reason {
    /// One more than the highest number of a reason.
    pub const COUNT: u32 = 37;

    /// Every reason, drops first.
    pub const ALL: [Self; 28] = [
        Self::NoRule,
        Self::DeniedByRule,
        Self::Expired,
        Self::UnknownDevice,
        Self::SpoofedSource,
        Self::WrongPort,
        Self::WrongVlan,
        Self::Malformed,
        Self::IpOptions,
        Self::Fragment,
        Self::ExtensionHeader,
        Self::UnknownEthertype,
        Self::MidFlow,
        Self::BadTcpFlags,
        Self::ArpSpoof,
        Self::NdSpoof,
        Self::RogueRa,
        Self::RogueDhcp,
        Self::Quarantined,
        Self::FlowTableFull,
        Self::DeviceQuota,
        Self::NotReady,
        Self::Misdirected,
        Self::Rule,
        Self::Established,
        Self::Related,
        Self::Control,
        Self::Observed,
    ];

    /// Whether a packet with this reason goes on.
    #[inline(always)]
    pub fn passes(self) -> bool {
        self as u8 >= Self::Rule as u8
    }

    /// Whether such a packet is dropped by state, policy or room, not by form, place or quarantine.
    #[inline(always)]
    pub fn is_of_policy(self) -> bool {
        matches!(
            self,
            Self::NoRule
                | Self::DeniedByRule
                | Self::Expired
                | Self::MidFlow
                | Self::FlowTableFull
                | Self::DeviceQuota
        )
    }

    /// The reason with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_keep_their_numbers() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_number(reason as u8), Some(reason));
            assert!((reason as u32) < Reason::COUNT);
        }
        assert_eq!(Reason::from_number(0), None);
        assert!(!Reason::NotReady.passes() && Reason::Rule.passes());
    }
}
