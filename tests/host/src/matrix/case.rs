//! A row of the matrix: frames in order, where each is judged, and the verdict on each under each
//! setting.

use std::fmt;

use wardline_ebpf::abi::Reason;
use wardline_policy::inventory::Nat;
use wardline_proto::v1;

use wardline_oracle::frames::Ethernet;

/// A row: one packet or a few, and the verdicts on them.
pub struct Case {
    /// Unique, but for the same row of the other family.
    pub name: String,
    /// The family, for a row that exists for each.
    pub family: Option<Family>,
    /// The defect of another product that the row would show.
    pub defect: Option<&'static str>,
    pub steps: Vec<Step>,
    /// For each setting that matters, the verdict on each step.
    pub said: Vec<(Setting, Vec<Says>)>,
}

/// One frame of a row.
pub struct Step {
    pub at: Place,
    pub frame: Frame,
    /// Seconds that have passed since the step before.
    pub after: u32,
}

/// Where a frame is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It enters through a guarded port.
    Enters(&'static str),
    /// It leaves through a guarded port.
    Leaves(&'static str, Origin),
}

/// Where a frame that leaves came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The router itself sends it.
    Router,
    /// An interface: the uplink, another guarded port, or a bridge above one.
    Interface(&'static str),
}

/// A frame as it was built, perhaps cut short.
#[derive(Clone, Debug)]
pub struct Frame {
    pub ethernet: Ethernet,
    pub cut: Option<usize>,
}

/// The verdict on one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Says {
    pub reason: Reason,
    /// For a pass by mode observe alone, the reason that it would be dropped for.
    pub would: Reason,
    /// Whether it is counted here; what entered through a guarded port was counted there.
    pub counted: bool,
}

/// How the policy of the matrix is changed for a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    Written,
    Fragments,
    Options,
    FragmentsAndOptions,
    Observe,
    ObserveAll,
    AdmitAny,
    Ethertypes,
    DhcpServer,
    Router,
    Quarantine,
    PortCut,
    PortCutObserve,
    Nat,
    NatObserve,
}

/// Rows as they are written down.
#[derive(Default)]
pub struct Table {
    pub cases: Vec<Case>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Table {
    /// A new row.
    pub fn case(&mut self, name: impl Into<String>) -> &mut Case {
        self.row(name.into(), None)
    }

    /// The latest row, to add to it.
    pub fn last(&mut self) -> &mut Case {
        self.cases.last_mut().expect("a row was written")
    }

    /// A row for each family.
    pub fn both(&mut self, name: &str, build: impl Fn(&mut Case, Family)) {
        for family in [Family::V4, Family::V6] {
            build(self.row(name.to_owned(), Some(family)), family);
        }
    }

    fn row(&mut self, name: String, family: Option<Family>) -> &mut Case {
        let (defect, steps, said) = Default::default();
        self.cases.push_mut(Case {
            name,
            family,
            defect,
            steps,
            said,
        })
    }
}

impl Case {
    /// Says which defect of another product the row would show.
    pub fn mirrors(&mut self, defect: &'static str) -> &mut Self {
        self.defect = Some(defect);
        self
    }

    /// The next frame enters.
    pub fn enters(&mut self, port: &'static str, frame: impl Into<Frame>) -> &mut Self {
        self.step(Place::Enters(port), frame.into())
    }

    /// The next frame leaves.
    pub fn leaves(
        &mut self,
        port: &'static str,
        from: Origin,
        frame: impl Into<Frame>,
    ) -> &mut Self {
        self.step(Place::Leaves(port, from), frame.into())
    }

    /// The last frame comes so many seconds after the one before.
    pub fn after(&mut self, seconds: u32) -> &mut Self {
        if let Some(step) = self.steps.last_mut() {
            step.after = seconds;
        }
        self
    }

    /// The verdicts under the policy as written: one for all frames, or one for each.
    pub fn is(&mut self, says: impl Into<Verdicts>) -> &mut Self {
        self.under(Setting::Written, says)
    }

    /// The verdicts under a setting.
    pub fn under(&mut self, setting: Setting, says: impl Into<Verdicts>) -> &mut Self {
        let says = match says.into() {
            Verdicts::All(says) => vec![says; self.steps.len()],
            Verdicts::Each(says) => says,
        };
        assert_eq!(says.len(), self.steps.len(), "{}", self.name);
        assert!(
            self.said.iter().all(|(other, _)| *other != setting),
            "{} says twice what it is under {setting:?}",
            self.name
        );
        self.said.push((setting, says));
        self
    }

    fn step(&mut self, at: Place, frame: Frame) -> &mut Self {
        assert!(self.said.is_empty(), "{}: frames come first", self.name);
        self.steps.push(Step {
            at,
            frame,
            after: 0,
        });
        self
    }
}

/// The verdicts on a row's frames.
pub enum Verdicts {
    All(Says),
    Each(Vec<Says>),
}

impl From<Says> for Verdicts {
    fn from(says: Says) -> Self {
        Self::All(says)
    }
}

impl From<Vec<Says>> for Verdicts {
    fn from(says: Vec<Says>) -> Self {
        Self::Each(says)
    }
}

impl<const N: usize> From<[Says; N]> for Verdicts {
    fn from(says: [Says; N]) -> Self {
        Self::Each(says.to_vec())
    }
}

impl Frame {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.ethernet.bytes();
        bytes.truncate(self.cut.unwrap_or(bytes.len()));
        bytes
    }
}

impl From<Ethernet> for Frame {
    fn from(ethernet: Ethernet) -> Self {
        let cut = None;
        Self { ethernet, cut }
    }
}

/// The first bytes of a frame, and no more.
pub fn cut(ethernet: Ethernet, length: usize) -> Frame {
    let cut = Some(length);
    Frame { ethernet, cut }
}

impl Says {
    const fn of(reason: Reason) -> Self {
        Self {
            reason,
            would: reason,
            counted: true,
        }
    }
}

/// A pass that only mode observe gives.
pub const fn would(says: Says) -> Says {
    Says {
        reason: Reason::Observed,
        ..says
    }
}

/// A pass that was counted where the packet entered.
pub const fn again(says: Says) -> Says {
    Says {
        counted: false,
        ..says
    }
}

macro_rules! says {
    ($($name:ident = $reason:ident),* $(,)?) => {
        $(pub const $name: Says = Says::of(Reason::$reason);)*
    };
}

says! {
    NO_RULE = NoRule, DENIED_BY_RULE = DeniedByRule, EXPIRED = Expired,
    UNKNOWN_DEVICE = UnknownDevice, SPOOFED_SOURCE = SpoofedSource, WRONG_PORT = WrongPort,
    WRONG_VLAN = WrongVlan, MALFORMED = Malformed, IP_OPTIONS = IpOptions, FRAGMENT = Fragment,
    EXTENSION_HEADER = ExtensionHeader, UNKNOWN_ETHERTYPE = UnknownEthertype, MID_FLOW = MidFlow,
    BAD_TCP_FLAGS = BadTcpFlags, ARP_SPOOF = ArpSpoof, ND_SPOOF = NdSpoof, ROGUE_RA = RogueRa,
    ROGUE_DHCP = RogueDhcp, MISDIRECTED = Misdirected, QUARANTINED = Quarantined,
    DEVICE_QUOTA = DeviceQuota, RULE = Rule, ESTABLISHED = Established, RELATED = Related, CONTROL = Control,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.family {
            None => Ok(()),
            Some(Family::V4) => f.write_str(", IPv4"),
            Some(Family::V6) => f.write_str(", IPv6"),
        }
    }
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason == self.would {
            write!(f, "`{}`", word(self.reason))
        } else {
            write!(
                f,
                "`{}`, would be `{}`",
                word(self.reason),
                word(self.would)
            )
        }
    }
}

/// A reason as the document and the client write it.
pub fn word(reason: Reason) -> String {
    let known = v1::Reason::try_from(i32::from(reason as u8)).map(|known| known.as_str_name());
    let name = known.unwrap_or("REASON_UNKNOWN");
    name.trim_start_matches("REASON_").to_lowercase()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enters(port) => write!(f, "in `{port}`"),
            Self::Leaves(port, Origin::Router) => write!(f, "out `{port}`, from the router"),
            Self::Leaves(port, Origin::Interface(from)) => {
                write!(f, "out `{port}`, from `{from}`")
            }
        }
    }
}

impl Setting {
    pub const ALL: [Self; 15] = [
        Self::Written,
        Self::Fragments,
        Self::Options,
        Self::FragmentsAndOptions,
        Self::Observe,
        Self::ObserveAll,
        Self::AdmitAny,
        Self::Ethertypes,
        Self::DhcpServer,
        Self::Router,
        Self::Quarantine,
        Self::PortCut,
        Self::PortCutObserve,
        Self::Nat,
        Self::NatObserve,
    ];

    /// What the document calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Written => "as written",
            Self::Fragments => "fragments",
            Self::Options => "options",
            Self::FragmentsAndOptions => "fragments and options",
            Self::Observe => "observe",
            Self::ObserveAll => "observe all",
            Self::AdmitAny => "admit any",
            Self::Ethertypes => "ethertypes",
            Self::DhcpServer => "DHCP server",
            Self::Router => "router port",
            Self::Quarantine => "quarantine",
            Self::PortCut => "port quarantine",
            Self::PortCutObserve => "port quarantine and observe",
            Self::Nat => "NAT",
            Self::NatObserve => "NAT, observe",
        }
    }

    /// What it changes in the policy.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Written => "the policy as written above",
            Self::Fragments => "zone `pumps` has `fragments: allow`",
            Self::Options => "zone `pumps` has `ip_options: allow`",
            Self::FragmentsAndOptions => {
                "zone `pumps` has `fragments: allow` and `ip_options: allow`"
            }
            Self::Observe => "zone `pumps` has `mode: observe`, zone `cameras` enforces",
            Self::ObserveAll => "zones `pumps` and `cameras` have `mode: observe`",
            Self::AdmitAny => "zone `pumps` has `admit: any`",
            Self::Ethertypes => {
                "zone `pumps` has `ethertypes: [0x8892, 0x88cc]`, PROFINET and LLDP"
            }
            Self::DhcpServer => "port `lan1` has `dhcp_server: true`",
            Self::Router => "port `lan1` has `router: true`",
            Self::Quarantine => "devices `pump` and `twofold` are in quarantine",
            Self::PortCut => "port `lan1` is in quarantine, zone `pumps` has `admit: any`",
            Self::PortCutObserve => {
                "port `lan1` is in quarantine, zone `pumps` has `admit: any` and `mode: observe`"
            }
            Self::Nat => "the router has NAT of IPv4 and IPv6",
            Self::NatObserve => {
                "the router has NAT of IPv4 and IPv6, zone `pumps` has `mode: observe`, zone `cameras` enforces"
            }
        }
    }

    /// Changes a policy as the setting says; quarantine is not part of the policy.
    pub fn change(self, policy: &mut v1::Policy) {
        let allow = v1::DropOrAllow::Allow as i32;
        for zone in &mut policy.zones {
            let (pumps, cameras) = (zone.name == "pumps", zone.name == "cameras");
            if pumps && matches!(self, Self::Fragments | Self::FragmentsAndOptions) {
                zone.fragments = allow;
            }
            if pumps && matches!(self, Self::Options | Self::FragmentsAndOptions) {
                zone.ip_options = allow;
            }
            let observe = matches!(
                self,
                Self::Observe | Self::PortCutObserve | Self::NatObserve
            );
            if pumps && observe || (pumps || cameras) && self == Self::ObserveAll {
                zone.mode = v1::ZoneMode::Observe as i32;
            }
            if pumps && matches!(self, Self::AdmitAny | Self::PortCut | Self::PortCutObserve) {
                zone.admit = v1::ZoneAdmit::Any as i32;
            }
            if pumps && self == Self::Ethertypes {
                zone.ethertypes = vec![0x8892, 0x88cc];
            }
        }
        for port in policy
            .ports
            .iter_mut()
            .filter(|port| port.interface == "lan1")
        {
            port.dhcp_server = self == Self::DhcpServer;
            port.router = self == Self::Router;
        }
    }

    /// Whether the router rewrites packets.
    pub fn nat(self) -> Nat {
        let rewrites = matches!(self, Self::Nat | Self::NatObserve);
        Nat {
            v4: rewrites,
            v6: rewrites,
        }
    }

    /// Devices in quarantine.
    pub fn quarantined(self) -> &'static [&'static str] {
        match self {
            Self::Quarantine => &["pump", "twofold"],
            _ => &[],
        }
    }

    /// Ports in quarantine.
    pub fn ports_cut(self) -> &'static [&'static str] {
        match self {
            Self::PortCut | Self::PortCutObserve => &["lan1"],
            _ => &[],
        }
    }
}
