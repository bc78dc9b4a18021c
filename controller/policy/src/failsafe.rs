//! The failsafe: hosts that may always reach the router, whatever a policy says. It is the daemon's
//! own list, and this module converts it for the kernel.
//!
//! It is for the day on which a policy locks the operators out. So it is in the router's own
//! configuration, overrides every rule, device and quarantine of a document, takes no room in the
//! flow table, and gives access to the router only. It does not let a malformed packet pass, nor
//! any other that is dropped for its form.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use wardline_ebpf::abi::{self, Address};

use crate::words::service::Service;

/// Hosts that may always reach the router, and the services that they may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failsafe {
    /// The prefixes of the hosts; never empty.
    pub from: Vec<IpNet>,
    /// The services, as text and as keys; never empty.
    pub services: Vec<(String, Service)>,
}

/// The text is not a valid failsafe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FailsafeError(String);

impl Failsafe {
    /// Reads an entry of the configuration.
    ///
    /// # Errors
    ///
    /// When a prefix or a service can't be read, or either list is empty.
    pub fn read(from: &[String], services: Vec<String>) -> Result<Self, FailsafeError> {
        if from.is_empty() || services.is_empty() {
            let message = "needs from = [\"10.0.9.5\"] and services = [\"tcp/22\"]";
            return Err(FailsafeError(message.to_owned()));
        }
        let nets = from.iter().map(|text| network(text));
        let services = services.into_iter().map(|text| {
            let service = text.parse::<Service>();
            service
                .map(|service| (text, service))
                .map_err(|error| FailsafeError(error.to_string()))
        });
        Ok(Self {
            from: nets.collect::<Result<_, _>>()?,
            services: services.collect::<Result<_, _>>()?,
        })
    }

    /// Entries for the kernel's table: each prefix with each service.
    pub fn entries(&self) -> impl Iterator<Item = abi::Failsafe> {
        self.from.iter().flat_map(|net| {
            let (network, mask) = (Address::from(net.network()), mask(*net));
            self.services.iter().map(move |(_, service)| abi::Failsafe {
                network,
                mask,
                first: service.first,
                last: service.last,
            })
        })
    }

    /// The prefixes, as a configuration writes them.
    pub fn from_texts(&self) -> Vec<String> {
        self.from.iter().map(ToString::to_string).collect()
    }

    /// The services, as a configuration writes them.
    pub fn service_texts(&self) -> Vec<String> {
        self.services.iter().map(|(text, _)| text.clone()).collect()
    }

    /// Whether an address is in one of the prefixes.
    pub fn has(&self, address: IpAddr) -> bool {
        self.from.iter().any(|net| net.contains(&address))
    }
}

/// As a configuration writes it.
impl fmt::Display for Failsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, services) = (self.from_texts(), self.service_texts());
        write!(f, "{{ from = {from:?}, services = {services:?} }}")
    }
}

/// A prefix, or an address alone.
fn network(text: &str) -> Result<IpNet, FailsafeError> {
    let read = text.parse::<IpNet>().ok();
    let net = read
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        .ok_or_else(|| {
            let message = format!("{text:?} is no address or prefix, as 10.0.9.5 or 10.0.9.0/24");
            FailsafeError(message)
        })?;
    if net != net.trunc() {
        let message = format!("{text:?} has host bits set; the prefix is {}", net.trunc());
        return Err(FailsafeError(message));
    }
    Ok(net)
}

/// The bits that a prefix has, in an address as the tables hold it.
fn mask(net: IpNet) -> Address {
    let length = match net {
        IpNet::V4(net) => 96 + u32::from(net.prefix_len()),
        IpNet::V6(net) => u32::from(net.prefix_len()),
    };
    let bits = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    Address::v6(&bits.to_be_bytes())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn read(from: &[&str], services: &[&str]) -> Result<Failsafe, FailsafeError> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Failsafe::read(
            &Vec::from_iter(from.iter().map(|it| (*it).to_owned())),
            texts(services),
        )
    }

    #[test]
    fn each_prefix_has_each_service() {
        let failsafe = read(&["10.0.9.0/24", "fd00::5"], &["tcp/22", "icmp/8"]).unwrap();
        let entries: Vec<abi::Failsafe> = failsafe.entries().collect();
        assert_eq!(entries.len(), 4);
        let has = |entry: &abi::Failsafe, text: &str| {
            entry.has(&Address::from(text.parse::<IpAddr>().unwrap()))
        };
        assert!(has(&entries[0], "10.0.9.255") && !has(&entries[0], "10.0.8.255"));
        assert!(!has(&entries[0], "::a00:9ff") && !has(&entries[0], "fd00::5"));
        assert!(has(&entries[2], "fd00::5") && !has(&entries[2], "fd00::4"));
        assert_eq!(
            (entries[0].first, entries[0].last),
            (6 << 16 | 22, 6 << 16 | 22)
        );
        assert_eq!(
            (entries[1].first, entries[1].last),
            (1 << 16 | 8 << 8, 1 << 16 | 8 << 8 | 0xff)
        );
        let all = read(&["0.0.0.0/0"], &["tcp/22"]).unwrap();
        let entry = all.entries().next().unwrap();
        assert!(has(&entry, "203.0.113.9") && !has(&entry, "fd00::5"));
        let all = read(&["::/0"], &["tcp/22"]).unwrap();
        let entry = all.entries().next().unwrap();
        assert!(has(&entry, "fd00::5") && !has(&entry, "203.0.113.9"));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (from, services, expected) in [
            (
                &["10.0.9.5/24"][..],
                &["tcp/22"][..],
                "the prefix is 10.0.9.0/24",
            ),
            (&["here"], &["tcp/22"], "is no address or prefix"),
            (
                &["10.0.9.5"],
                &["ssh"],
                "\"ssh\" is not a protocol and port",
            ),
            (&["10.0.9.5"], &[], "needs from"),
            (&[], &["tcp/22"], "needs from"),
        ] {
            let error = read(from, services).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
