//! Explains whether a packet would pass, and why: builds the packet that would open the flow, and
//! judges it with the kernel's own code on the tables in force.
//!
//! No other decision is made here. Only the packet is chosen: which addresses stand for the ends,
//! and where the packet is judged. That is where it enters a guarded port, or else where it leaves
//! through one. A packet that passes where it enters is not judged again, because the port that it
//! leaves through finds its flow.
//!
//! What the packet alone does not decide, the answer says beside the verdict, as the module `notes` has it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use wardline_ebpf::{
    abi::{Address, Reason},
    decide::{self, Verdict, Work},
    packet::number,
};

mod addresses;
mod ends;
mod frame;
mod notes;
mod place;

use self::{
    addresses::{is_v4, unmapped},
    ends::{Candidate, Owner, Resolver, problem},
    frame::{EPHEMERAL, Packet},
    place::Checkpoint,
};
use crate::{
    catalogue,
    inventory::{Header, Link},
    numbers::numbered,
    snapshot::Snapshot,
    words::{
        mac::Mac,
        problem::Problem,
        reason::reason_word,
        service::{Service, service_text},
    },
};

/// The packet that a question describes, in the words of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// `device:NAME`, `zone:NAME`, `label:KEY=VALUE`, `cidr:PREFIX`, `internet`, `router`, `any`, a name
    /// of DNS with or without `name:`, or an address.
    pub from: String,
    /// The same.
    pub to: String,
    /// A service's name, or a port as `tcp/443`.
    pub service: String,
    /// The interface where the packet enters; empty: one where the source belongs.
    pub port: String,
    /// The source port; 0: an ephemeral one.
    pub source_port: u32,
    /// The MAC that the packet comes from; empty: one of the source's.
    pub mac: String,
}

/// What would happen to the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Why it would pass or be dropped.
    pub reason: Reason,
    /// The rule that decided; empty: none did.
    pub rule: String,
    /// The source's zone; empty: none.
    pub source_zone: String,
    /// The destination's zone; empty: none.
    pub destination_zone: String,
    /// The packet that was judged, in words.
    pub packet: String,
    /// The revision that judged it.
    pub revision: u64,
}

impl Answer {
    /// Whether the packet would pass.
    pub fn passes(&self) -> bool {
        self.reason.passes()
    }
}

/// What the kernel has learned of devices, by their numbers: their addresses, and where they are.
pub trait Learned {
    /// The device that has learned an address; a link-local one comes with its link.
    fn device(&self, address: Address) -> Option<u32>;
    /// What a device has learned.
    fn addresses(&self, device: u32) -> Vec<IpAddr>;
    /// The number of the interface where a device was last seen.
    fn seen(&self, device: u32) -> Option<u32>;
    /// The number of the interface where an address was learned.
    fn learned_at(&self, address: Address) -> Option<u32>;
    /// The selectors of the names that an address has, each with the tick at which that ends.
    fn names(&self, address: Address) -> Vec<(u32, u32)>;
    /// The addresses of a selector, and the tick at which each ends.
    fn named(&self, selector: u32) -> Vec<(IpAddr, u32)>;
}

/// Judges the packet that a question describes. `tick` is the current tick.
///
/// # Errors
///
/// The problems of the question, by its fields; with an empty path when no policy is in force.
pub fn explain(
    snapshot: &Snapshot,
    question: &Question,
    learned: &dyn Learned,
    tick: u32,
) -> Result<Answer, Vec<Problem>> {
    if snapshot.revision == 0 {
        return Err(vec![problem("", "no policy is in force")]);
    }
    let resolver = Resolver::new(snapshot, learned, tick);
    let mut taken = BTreeSet::new();
    let from = resolver.ends("from", &question.from, &mut taken);
    let to = resolver.ends("to", &question.to, &mut taken);
    let services = services(snapshot, &question.service);
    let source_port = source_port(question.source_port);
    let mac = sender(&question.mac);
    let (from, to, services, source_port, mac) = match (from, to, services, source_port, mac) {
        (Ok(from), Ok(to), Ok(services), Ok(source_port), Ok(mac)) => {
            (from, to, services, source_port, mac)
        }
        (from, to, services, source_port, mac) => {
            let problems = [
                from.err(),
                to.err(),
                services.err(),
                source_port.err(),
                mac.err(),
            ];
            return Err(problems.into_iter().flatten().collect());
        }
    };
    let (from, to, service) = choose(&from, &to, &services).map_err(|problem| vec![problem])?;
    resolver.presume(from);
    resolver.presume(to);
    let mut asked = resolver
        .asked(from, to, service, source_port, &question.port)
        .map_err(|problem| vec![problem])?;
    if let Some(mac) = mac {
        asked.send_from(mac).map_err(|problem| vec![problem])?;
    }
    let verdict = resolver.judge(&asked.packet, &asked);
    let notes = resolver.notes(&asked, &verdict, from, to);
    Ok(Answer {
        reason: verdict.reason,
        rule: snapshot.name(numbered::RULE, verdict.rule).to_owned(),
        source_zone: resolver.zone_name(from),
        destination_zone: resolver.zone_name(to),
        packet: in_words(&asked, &verdict) + &notes,
        revision: snapshot.revision,
    })
}

/// A packet, and where it is judged.
struct Asked<'a> {
    packet: Packet,
    checkpoint: Checkpoint,
    /// The interface through which it enters or leaves there.
    link: &'a Link,
}

impl Asked<'_> {
    /// Lets the packet come from this MAC.
    fn send_from(&mut self, mac: Mac) -> Result<(), Problem> {
        let enters = matches!(self.checkpoint, Checkpoint::Enters { .. });
        if !enters || self.link.header == Header::Bare {
            let message = format!(
                "the packet is judged at {}, where its sender's MAC is not seen; --port names the port \
                 that it enters",
                self.link.name
            );
            return Err(problem("mac", message));
        }
        self.packet.source_mac = mac;
        Ok(())
    }
}

impl<'a> Resolver<'a> {
    /// The packet that one end sends to another, and where it is judged; `port` is the one that the
    /// question names.
    fn asked(
        &self,
        from: &Candidate<'_>,
        to: &Candidate<'_>,
        service: u32,
        source_port: u16,
        port: &str,
    ) -> Result<Asked<'a>, Problem> {
        let (checkpoint, link) = self.checkpoint(from, to, port)?;
        let packet = Packet {
            source: from.address,
            destination: to.address,
            source_mac: self.source_mac(from, &checkpoint, link),
            destination_mac: self.destination_mac(to, &checkpoint, link, service),
            vlan: checkpoint.vlan(),
            service,
            source_port,
        };
        Ok(Asked {
            packet,
            checkpoint,
            link,
        })
    }

    /// Judges a packet at the place of one that was asked about.
    fn judge(&self, packet: &Packet, at: &Asked<'_>) -> Verdict {
        let (bytes, model, mut work) = (packet.bytes(), &self.model, Work::default());
        let bytes = match at.link.header {
            Header::Bare => &bytes[ETHERNET..],
            Header::Ethernet | Header::Other(_) => &bytes[..],
        };
        let number = at.link.number;
        match at.checkpoint {
            Checkpoint::Enters { .. } => decide::ingress(bytes, None, number, model, &mut work),
            Checkpoint::Leaves { came_from, .. } => {
                decide::egress(bytes, None, number, came_from, model, &mut work)
            }
        }
    }
}

/// Length of the header that packets of some interfaces lack. Those have no VLANs.
const ETHERNET: usize = 14;

/// Keys of the services that a text names, the first of each.
fn services(snapshot: &Snapshot, text: &str) -> Result<Vec<u32>, Problem> {
    if text.contains('/') {
        let service: Service = text
            .parse()
            .map_err(|error| problem("service", format!("{error}")))?;
        return Ok(vec![service.first]);
    }
    let known = snapshot
        .policy
        .services
        .iter()
        .find(|service| service.name == text);
    let Some(service) = known else {
        let Some(known) = catalogue::known(text) else {
            let message =
                format!("no service {text:?}; write a service's name, or a port as tcp/443");
            return Err(problem("service", message));
        };
        return Ok(known.services().map(|service| service.first).collect());
    };
    let ports = service
        .ports
        .iter()
        .filter_map(|port| port.parse::<Service>().ok());
    let keys: Vec<u32> = ports.map(|service| service.first).collect();
    if keys.is_empty() {
        return Err(problem("service", format!("service {text:?} has no ports")));
    }
    Ok(keys)
}

fn sender(mac: &str) -> Result<Option<Mac>, Problem> {
    if mac.is_empty() {
        return Ok(None);
    }
    let mac = mac.parse();
    mac.map(Some)
        .map_err(|error| problem("mac", format!("{error}")))
}

fn source_port(port: u32) -> Result<u16, Problem> {
    match u16::try_from(port) {
        Ok(0) => Ok(EPHEMERAL),
        Ok(port) => Ok(port),
        Err(_) => Err(problem(
            "source_port",
            format!("{port} is no port; they go up to 65535"),
        )),
    }
}

/// One candidate of each end, of one family, different if they can be, and a service that this
/// family has; IPv4 first.
fn choose<'a, 'b>(
    from: &'b [Candidate<'a>],
    to: &'b [Candidate<'a>],
    services: &[u32],
) -> Result<(&'b Candidate<'a>, &'b Candidate<'a>, u32), Problem> {
    let mut shared = None;
    for v4 in [true, false] {
        let of = |candidate: &&'b Candidate<'a>| is_v4(candidate.address) == v4;
        let openers: Vec<_> = from.iter().filter(of).collect();
        let others: Vec<_> = to.iter().filter(of).collect();
        let (Some(opener), Some(other)) = (openers.first(), others.first()) else {
            continue;
        };
        shared = Some(if v4 { "IPv4" } else { "IPv6" });
        let Some(service) = services.iter().find(|service| is_of_family(**service, v4)) else {
            continue;
        };
        let pairs = openers
            .iter()
            .flat_map(|a| others.iter().map(move |b| (*a, *b)));
        let apart = |(a, b): &(&Candidate<'_>, &Candidate<'_>)| {
            a.address != b.address && (a.owner != b.owner || a.owner == Owner::Nobody)
        };
        let (opener, other) = { pairs }.find(apart).unwrap_or((opener, other));
        return Ok((opener, other, *service));
    }
    let mut ends = [("from", from), ("to", to)].into_iter();
    let mapped = ends.find_map(|(path, end)| Some((path, end, unmapped(end.first()?.address)?)));
    Err(match shared {
        None if let Some((path, end, v4)) = mapped => {
            let address = end[0].address;
            let message =
                format!("{address} is IPv4 in IPv6, and the other end is not; write {v4}");
            problem(path, message)
        }
        None => problem("to", "has no address of the family that `from` has"),
        Some(family) => problem(
            "service",
            format!("not of {family}, which is all that both ends have"),
        ),
    })
}

/// Whether a family has a service: each family has its own ICMP.
fn is_of_family(service: u32, v4: bool) -> bool {
    match (service >> 16) as u8 {
        number::ICMP => v4,
        number::ICMPV6 => !v4,
        _ => true,
    }
}

/// `tcp 10.20.2.21:49152 → 10.20.1.11:443 from 02:00:00:00:02:21, entering cam1`.
fn in_words(asked: &Asked<'_>, verdict: &Verdict) -> String {
    let Asked {
        packet,
        checkpoint,
        link,
    } = asked;
    let low = packet.service as u16;
    let (source, destination) = (packet.source, packet.destination);
    let what = match packet.protocol() {
        protocol @ (number::TCP | number::UDP) => {
            let source = SocketAddr::new(source, packet.source_port);
            let destination = SocketAddr::new(destination, low);
            let protocol = if protocol == number::TCP {
                "tcp"
            } else {
                "udp"
            };
            format!("{protocol} {source} → {destination}")
        }
        protocol => format!("{} {source} → {destination}", service_text(protocol, low)),
    };
    let (mac, name) = (packet.source_mac, &link.name);
    let place = match checkpoint {
        Checkpoint::Enters { .. } if link.header == Header::Bare => format!(", entering {name}"),
        Checkpoint::Enters { .. } => format!(" from {mac}, entering {name}"),
        Checkpoint::Leaves { came_from: 0, .. } => {
            format!(" from the router, leaving through {name}")
        }
        Checkpoint::Leaves { .. } => format!(" from elsewhere, leaving through {name}"),
    };
    let vlan = if packet.vlan == 0 {
        String::new()
    } else {
        format!(" on VLAN {}", packet.vlan)
    };
    let observed = match verdict.reason {
        Reason::Observed => {
            let would = reason_word(verdict.would);
            format!("; its zones only observe, or it would be dropped: {would}")
        }
        _ => String::new(),
    };
    format!("{what}{place}{vlan}{observed}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests;
