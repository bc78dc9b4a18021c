//! What does a verdict depend on that the packet does not say?
//!
//! On what NAT makes of the packet; on a question that it may answer; on what IPv4 in IPv6 stands for.
//! And where no rule counts, the answer says so.

use std::{iter, net::IpAddr};

use ipnet::IpNet;
use wardline_ebpf::{abi::Reason, decide::Verdict, packet::number, policy};

use super::{
    Asked,
    addresses::{is_v4, unmapped},
    ends::{Candidate, Owner, Resolver},
    frame::Packet,
    place::Checkpoint,
};
use crate::{
    intent::{Action, Rule, Selector},
    numbers::numbered,
    words::{
        reason::reason_word,
        service::{Service, UDP},
    },
};

/// Seconds for which the kernel lets a question be answered.
const ANSWERED: u32 = 10;

impl Resolver<'_> {
    /// What stands behind the packet in an answer: nothing, or one or more of `; …`.
    pub(super) fn notes(
        &self,
        asked: &Asked<'_>,
        verdict: &Verdict,
        from: &Candidate<'_>,
        to: &Candidate<'_>,
    ) -> String {
        let notes = [
            self.masqueraded(asked, from),
            self.answering(asked, verdict, to),
            self.known_as(to),
            membership(&asked.packet, verdict),
            in_ipv6(&asked.packet),
        ];
        let notes = notes.into_iter().flatten();
        notes.map(|note| format!("; {note}")).collect()
    }

    /// Which names of the policy an address has.
    fn known_as(&self, to: &Candidate<'_>) -> Option<String> {
        let names = self.names_of(to.address);
        if names.is_empty() {
            return None;
        }
        let names = names.join(", ");
        let address = to.address;
        Some(match to.owner {
            Owner::Nobody if policy::may_have_names(&self.end(address)) => {
                format!("{address} is what resolvers say of {names}")
            }
            _ => format!(
                "resolvers say {address} of {names}, which counts for nothing: it is the router's, a \
                 device's or a zone's"
            ),
        })
    }

    /// The verdict on what the router's NAT may make of a packet from elsewhere.
    fn masqueraded(&self, asked: &Asked<'_>, from: &Candidate<'_>) -> Option<String> {
        let Checkpoint::Leaves {
            vlan,
            came_from: 1..,
        } = asked.checkpoint
        else {
            return None;
        };
        let source = self.masquerades(from)?;
        let rewritten = Asked {
            packet: Packet {
                source,
                ..asked.packet
            },
            checkpoint: Checkpoint::Leaves { vlan, came_from: 0 },
            link: asked.link,
        };
        let reason = self.judge(&rewritten.packet, &rewritten).reason;
        let verdict = if reason.passes() { "allow" } else { "drop" };
        let word = reason_word(reason);
        Some(format!(
            "the router has NAT: if that gives it the router's address, {verdict}: {word}"
        ))
    }

    /// By which rule a packet passes that policy denies, while it answers a question.
    ///
    /// Each question that `to` may ask is judged, and then the packet again: so the kernel's own code
    /// says whether it is an answer.
    fn answering(
        &self,
        asked: &Asked<'_>,
        verdict: &Verdict,
        to: &Candidate<'_>,
    ) -> Option<String> {
        let packet = &asked.packet;
        let is_denied = [verdict.reason, verdict.would]
            .into_iter()
            .any(|reason| matches!(reason, Reason::NoRule | Reason::Expired));
        if !is_denied || packet.protocol() != number::UDP {
            return None;
        }
        let port = match to.owner {
            Owner::Router => &*asked.link.name,
            Owner::Device(_) | Owner::Nobody => "",
        };
        let own = packet.service as u16;
        let rules = self.snapshot.intent.rules.iter();
        for rule in rules.filter(|rule| !rule.answers.is_empty() && rule.action == Action::Allow) {
            let groups = rule.to.iter().flat_map(|it| self.groups(it));
            for group in groups.filter(|group| is_v4(*group) == is_v4(to.address)) {
                let owner = self.owner(group);
                let group = Candidate {
                    address: group,
                    owner,
                };
                for service in asking(rule) {
                    let question = self.asked(to, &group, service, own, port);
                    let Ok(question) = question else { continue };
                    if !self.judge(&question.packet, &question).reason.passes() {
                        continue;
                    }
                    // From another port, because where zones observe the first has opened a flow.
                    let answer = Packet {
                        source_port: packet.source_port ^ 1,
                        ..*packet
                    };
                    let verdict = self.judge(&answer, asked);
                    if verdict.reason == Reason::Rule {
                        let rule = self.snapshot.name(numbered::RULE, verdict.rule);
                        let who = to.address;
                        return Some(format!(
                            "if {who} has asked by {rule} from port {own} in the last {ANSWERED} s, \
                             allow: rule by {rule}"
                        ));
                    }
                }
            }
        }
        None
    }

    /// Groups and broadcast addresses that a selector names, one of each kind.
    fn groups(&self, selector: &Selector) -> Vec<IpAddr> {
        let all = [
            IpAddr::from([255; 4]),
            // All nodes of the link.
            IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 1]),
        ];
        match selector {
            Selector::Any => all.to_vec(),
            Selector::Zone(zone) => {
                let subnets = self.snapshot.intent.zones[zone.0].subnets.iter();
                let v4 = subnets.filter(|net| is_v4(net.addr()));
                v4.map(IpNet::broadcast).collect()
            }
            Selector::Cidr(net) => {
                let inside = all.into_iter().filter(|group| net.contains(group));
                inside.chain(iter::once(net.network())).collect()
            }
            Selector::Device(_)
            | Selector::Label(_)
            | Selector::Internet
            | Selector::Name(_)
            | Selector::Router => Vec::new(),
        }
    }
}

/// The first port of each of a rule's services by which UDP may ask.
fn asking(rule: &Rule) -> impl Iterator<Item = u32> + '_ {
    let udp = Service::of(UDP, 0, 0xffff);
    let services = rule.services.iter();
    let services = services.filter(move |it| it.first <= udp.last && it.last >= udp.first);
    services.map(move |it| it.first.max(udp.first))
}

fn membership(packet: &Packet, verdict: &Verdict) -> Option<String> {
    let denied = verdict.reason == Reason::NoRule || verdict.would == Reason::NoRule;
    (denied && packet.is_membership()).then(|| {
        "messages about membership pass as control, to their group only, and by no rule".to_owned()
    })
}

fn in_ipv6(packet: &Packet) -> Option<String> {
    let mut ends = [packet.source, packet.destination].into_iter();
    ends.find_map(|end| {
        let v4 = unmapped(end)?;
        Some(format!(
            "no packet on a wire has {end}, which is IPv4 in IPv6: ask about {v4}"
        ))
    })
}
