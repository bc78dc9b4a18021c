//! Services: a protocol with its ports, types or codes, as a range of service keys.

use std::str::FromStr;

use wardline_ebpf::packet::number;

use super::problem::Quoted;

/// An inclusive interval of service keys: protocol << 16 | port, and for ICMP
/// protocol << 16 | type << 8 | code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The lowest key.
    pub first: u32,
    /// The highest key.
    pub last: u32,
}

/// The text does not name a protocol and port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServiceError(pub(crate) String);

pub(crate) const ICMP: u32 = 1;

pub(crate) const TCP: u32 = 6;

pub(crate) const UDP: u32 = 17;

pub(crate) const ICMPV6: u32 = 58;

impl Service {
    /// Every protocol and port.
    pub const ALL: Self = Self {
        first: 0,
        last: 0x00ff_ffff,
    };

    pub(crate) const fn of(protocol: u32, first: u32, last: u32) -> Self {
        Self {
            first: protocol << 16 | first,
            last: protocol << 16 | last,
        }
    }

    /// Services that carry other packets inside, which the router does not judge: IP in IP, 6in4,
    /// GRE, IP within IP, EtherIP, L2TP and MPLS in IP, VXLAN (both ports) and Geneve. In order.
    pub(crate) const TUNNELS: [Self; 10] = [
        Self::of(4, 0, 0xffff),
        Self::of(UDP, 4789, 4789),
        Self::of(UDP, 6081, 6081),
        Self::of(UDP, 8472, 8472),
        Self::of(41, 0, 0xffff),
        Self::of(47, 0, 0xffff),
        Self::of(94, 0, 0xffff),
        Self::of(97, 0, 0xffff),
        Self::of(115, 0, 0xffff),
        Self::of(137, 0, 0xffff),
    ];

    /// What an allow rule grants: everything, and all of UDP, do not include tunnels.
    pub(crate) fn without_tunnels(self) -> Vec<Self> {
        if self != Self::ALL && self != Self::of(UDP, 0, 0xffff) {
            return vec![self];
        }
        let mut parts = Vec::new();
        let mut first = self.first;
        let inside = |tunnel: &&Self| self.first <= tunnel.first && tunnel.last <= self.last;
        for tunnel in Self::TUNNELS.iter().filter(inside) {
            parts.push(Self {
                first,
                last: tunnel.first - 1,
            });
            first = tunnel.last + 1;
        }
        parts.push(Self { first, ..self });
        parts
    }
}

impl FromStr for Service {
    type Err = ServiceError;

    /// Reads `tcp/443`, `udp/5000-5100`, `tcp/*`, `icmp/8`, `icmp/3/4`, `icmpv6/*` or `proto/47`.
    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let quoted = Quoted(text);
        let fail = |why: &str| ServiceError(format!("{quoted} {why}"));
        let (protocol, rest) = text.split_once('/').ok_or_else(|| {
            fail("is not a protocol and port; write it as tcp/443, udp/5000-5100, icmp/8 or proto/47")
        })?;
        let number = |text: &str, most: u32| -> Option<u32> {
            let digits = (1..=5).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
            text.parse().ok().filter(|&number| digits && number <= most)
        };
        let port = |text: &str| {
            number(text, 0xffff).ok_or_else(|| {
                fail("has no port from 0 to 65535; write one, a range as 5000-5100, or * for all")
            })
        };
        let kind = |text: &str| {
            number(text, 0xff).ok_or_else(|| {
                fail("has no type from 0 to 255; write type, type/code, or * for all")
            })
        };
        match protocol {
            "tcp" | "udp" => {
                let protocol = if protocol == "tcp" { TCP } else { UDP };
                if rest == "*" {
                    return Ok(Self::of(protocol, 0, 0xffff));
                }
                let (first, last) = rest.split_once('-').unwrap_or((rest, rest));
                let (first, last) = (port(first)?, port(last)?);
                if first > last {
                    return Err(fail(&format!(
                        "is a range from high to low; write {last}-{first}"
                    )));
                }
                Ok(Self::of(protocol, first, last))
            }
            "icmp" | "icmpv6" => {
                let protocol = if protocol == "icmp" { ICMP } else { ICMPV6 };
                if rest == "*" {
                    return Ok(Self::of(protocol, 0, 0xffff));
                }
                match rest.split_once('/') {
                    Some((of, code)) => {
                        let key = kind(of)? << 8 | kind(code)?;
                        Ok(Self::of(protocol, key, key))
                    }
                    None => {
                        let key = kind(rest)? << 8;
                        Ok(Self::of(protocol, key, key | 0xff))
                    }
                }
            }
            "proto" => {
                let protocol = number(rest, 0xff)
                    .ok_or_else(|| fail("has no protocol number from 0 to 255; write proto/47"))?;
                Ok(Self::of(protocol, 0, 0xffff))
            }
            _ => Err(fail(
                "names no known protocol; one of tcp, udp, icmp, icmpv6, proto",
            )),
        }
    }
}

/// Joins services that overlap or touch, so that equal sets of keys are equal lists.
pub(crate) fn merge(mut services: Vec<Service>) -> Vec<Service> {
    services.sort_unstable();
    services.dedup_by(|next, kept| {
        let joined = next.first <= kept.last.saturating_add(1);
        if joined {
            kept.last = kept.last.max(next.last);
        }
        joined
    });
    services
}

/// Removes services from others; both lists are sorted and disjoint.
pub(crate) fn without(services: Vec<Service>, others: &[Service]) -> Vec<Service> {
    let mut left = Vec::new();
    for service in services {
        let mut first = service.first;
        for other in others.iter().filter(|it| it.last >= service.first) {
            if other.first > service.last {
                break;
            }
            if other.first > first {
                left.push(Service {
                    first,
                    last: other.first - 1,
                });
            }
            first = first.max(other.last.saturating_add(1));
        }
        if first <= service.last {
            left.push(Service {
                first,
                last: service.last,
            });
        }
    }
    left
}

pub(crate) fn covers(services: &[Service], others: &[Service]) -> bool {
    without(merge(others.to_vec()), services).is_empty()
}

pub(crate) fn meets(services: &[Service], others: &[Service]) -> bool {
    let meets = |one: &Service, other: &Service| one.first <= other.last && other.first <= one.last;
    services
        .iter()
        .any(|one| others.iter().any(|other| meets(one, other)))
}

/// Services as documents write them; those that no word covers, as protocol numbers.
pub fn service_words(services: &[Service]) -> Vec<String> {
    services
        .iter()
        .map(|service| service_word(*service))
        .collect()
}

fn service_word(service: Service) -> String {
    let Service { first, last } = service;
    let (protocol, to) = (first >> 16, last >> 16);
    let (low, high) = (first & 0xffff, last & 0xffff);
    let whole = low == 0 && high == 0xffff;
    if protocol != to {
        return match service == Service::ALL {
            true => "every service".to_owned(),
            false if whole => format!("proto/{protocol}-{to}"),
            false => format!("proto/{protocol}:{low} to proto/{to}:{high}"),
        };
    }
    match protocol {
        6 | 17 => {
            let name = if protocol == 6 { "tcp" } else { "udp" };
            match (whole, low == high) {
                (true, _) => format!("{name}/*"),
                (_, true) => format!("{name}/{low}"),
                _ => format!("{name}/{low}-{high}"),
            }
        }
        1 | 58 => {
            let name = if protocol == 1 { "icmp" } else { "icmpv6" };
            let (kind, code) = (low >> 8, low & 0xff);
            match (whole, low == high) {
                (true, _) => format!("{name}/*"),
                (_, true) => format!("{name}/{kind}/{code}"),
                _ if high == low | 0xff => format!("{name}/{kind}"),
                _ => format!("{name}/{kind}-{}", high >> 8),
            }
        }
        _ => format!("proto/{protocol}"),
    }
}

/// A service as a policy writes it. `low` is the port, or for ICMP `type << 8 | code`.
pub fn service_text(protocol: u8, low: u16) -> String {
    let [kind, code] = low.to_be_bytes();
    match protocol {
        number::TCP => format!("tcp/{low}"),
        number::UDP => format!("udp/{low}"),
        number::ICMP | number::ICMPV6 => {
            let family = if protocol == number::ICMP {
                "icmp"
            } else {
                "icmpv6"
            };
            if code == 0 {
                format!("{family}/{kind}")
            } else {
                format!("{family}/{kind}/{code}")
            }
        }
        protocol => format!("proto/{protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_services() {
        let key = |text: &str| text.parse::<Service>().map(|s| (s.first, s.last)).ok();
        assert_eq!(key("tcp/443"), Some((0x06_01bb, 0x06_01bb)));
        assert_eq!(key("udp/5000-5100"), Some((0x11_1388, 0x11_13ec)));
        assert_eq!(key("tcp/*"), Some((0x06_0000, 0x06_ffff)));
        assert_eq!(key("tcp/0-65535"), Some((0x06_0000, 0x06_ffff)));
        assert_eq!(key("icmp/8"), Some((0x01_0800, 0x01_08ff)));
        assert_eq!(key("icmp/8/0"), Some((0x01_0800, 0x01_0800)));
        assert_eq!(key("icmpv6/128"), Some((0x3a_8000, 0x3a_80ff)));
        assert_eq!(key("icmpv6/*"), Some((0x3a_0000, 0x3a_ffff)));
        assert_eq!(key("proto/47"), Some((0x2f_0000, 0x2f_ffff)));
        for text in [
            "",
            "/",
            "tcp",
            "tcp/",
            "tcp/-",
            "tcp/1-",
            "tcp/+1",
            "tcp/ 1",
            "TCP/1",
            "icmp/256",
            "icmp/8/",
            "proto/256",
            "proto/*",
            "tcp/443/1",
            "udp/000001",
        ] {
            assert_eq!(key(text), None, "{text:?}");
        }
    }

    #[test]
    fn joins_services_that_touch() {
        let tcp = |first, last| Service::of(TCP, first, last);
        let joined = merge(vec![
            tcp(30, 40),
            tcp(1, 5),
            tcp(6, 9),
            tcp(2, 3),
            tcp(11, 12),
            tcp(35, 50),
        ]);
        assert_eq!(joined, [tcp(1, 9), tcp(11, 12), tcp(30, 50)]);
        assert_eq!(merge(vec![Service::ALL, tcp(1, 2)]), [Service::ALL]);
    }
}
