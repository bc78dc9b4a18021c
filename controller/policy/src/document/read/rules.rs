//! Reads the services and the rules of a document.

use std::net::IpAddr;

use ipnet::IpNet;

use wardline_ebpf::packet::number;
use wardline_proto::{time::from_proto, v1};

use super::{Labels, check_notes, names::check_names};
use crate::{
    catalogue::CATALOGUE,
    document::Document,
    intent::{Action, DeviceIndex, Rule, Selector, ZoneIndex},
    words::{
        name::Names,
        prefix::parse_prefix,
        problem::{Full, Problems, Quoted},
        service::{Service, ServiceError, merge},
    },
};

/// The named services; none for one that could not be read, so that its users are not reported.
pub(super) struct Services<'a> {
    names: Names<'a>,
    /// By position among the sorted names.
    ports: Vec<Vec<Service>>,
}

pub(super) fn read_services<'a>(
    document: &'a Document,
    problems: &mut Problems,
) -> Result<Services<'a>, Full> {
    let names = Names::new(
        "service",
        document
            .services
            .iter()
            .map(|service| service.name.as_str())
            // The document's own names come before those of the catalogue.
            .chain(CATALOGUE.iter().map(|known| known.name)),
    );
    let mut ports = vec![Vec::new(); names.sorted.len()];
    for known in CATALOGUE {
        if let Some(at) = names.find(known.name) {
            ports[at] = known.services().collect();
        }
    }
    for (i, service) in document.services.iter().enumerate() {
        names.check(i, &service.name, problems)?;
        let mut own = Vec::with_capacity(service.ports.len());
        if service.ports.is_empty() {
            let path = format_args!("services[{i}].ports");
            problems.add(path, "missing; list at least one, as tcp/443")?;
        }
        for (j, text) in service.ports.iter().enumerate() {
            match text.parse() {
                Ok(port) => own.push(port),
                Err(ServiceError(message)) => {
                    problems.add(format_args!("services[{i}].ports[{j}]"), message)?;
                }
            }
        }
        check_notes(format_args!("services[{i}]"), &service.into(), problems)?;
        if let Some(at) = names.find(&service.name) {
            ports[at] = own;
        }
    }
    Ok(Services { names, ports })
}

/// What the ends and services of rules may name.
pub(super) struct Ends<'a> {
    pub(super) zones: &'a Names<'a>,
    pub(super) devices: &'a Names<'a>,
    pub(super) services: &'a Services<'a>,
    pub(super) labels: &'a Labels,
}

pub(super) fn read_rules(
    document: &Document,
    ends: &Ends<'_>,
    problems: &mut Problems,
) -> Result<Vec<Rule>, Full> {
    let names = Names::new("rule", document.rules.iter().map(|rule| rule.name.as_str()));
    let mut rules = Vec::with_capacity(document.rules.len());
    for (i, rule) in document.rules.iter().enumerate() {
        names.check(i, &rule.name, problems)?;
        let from = read_selectors(i, "from", &rule.from, ends, problems)?;
        let to = read_selectors(i, "to", &rule.to, ends, problems)?;
        let services = read_rule_services(i, rule, ends, problems)?;
        let action = match v1::Action::try_from(rule.action) {
            Ok(v1::Action::Allow) => Action::Allow,
            Ok(v1::Action::Deny) => Action::Deny,
            Ok(v1::Action::Unspecified) => {
                problems.add(
                    format_args!("rules[{i}].action"),
                    "missing; one of allow, deny",
                )?;
                Action::Deny
            }
            Err(_) => {
                let path = format_args!("rules[{i}].action");
                problems.add(
                    path,
                    format_args!("{} is not known; one of allow, deny", rule.action),
                )?;
                Action::Deny
            }
        };
        let mut expires = None;
        if let Some(time) = &rule.expires {
            expires = from_proto(time);
            if expires.is_none() {
                let path = format_args!("rules[{i}].expires");
                problems.add(path, "not a time; write it as 2026-12-01T00:00:00Z")?;
            }
        }
        if rule.keep_in_quarantine && action == Action::Deny {
            problems.add(
                format_args!("rules[{i}].keep_in_quarantine"),
                "is for allow rules; a deny rule holds in quarantine anyway",
            )?;
        }
        check_names(i, rule, problems)?;
        let answers = read_answers(i, rule, (&to, &services), ends, problems)?;
        check_notes(format_args!("rules[{i}]"), &rule.into(), problems)?;
        rules.push(Rule {
            name: rule.name.clone(),
            from,
            to,
            services,
            action,
            log: rule.log,
            expires,
            kept: rule.keep_in_quarantine || action == Action::Deny,
            answers,
        });
    }
    Ok(rules)
}

/// Who may answer: for an allow rule by which UDP may go to a group or broadcast address.
fn read_answers(
    i: usize,
    rule: &v1::Rule,
    (to, services): (&[Selector], &[Service]),
    ends: &Ends<'_>,
    problems: &mut Problems,
) -> Result<Vec<Selector>, Full> {
    if rule.answers_from.is_empty() {
        return Ok(Vec::new());
    }
    let path = format_args!("rules[{i}].answers_from");
    if rule.action == v1::Action::Deny as i32 {
        problems.add(path, "is for allow rules; a deny rule asks nobody")?;
    }
    // Zones and `any` mean the broadcasts of subnets, too.
    let asks_many = to.iter().any(|selector| match selector {
        Selector::Any | Selector::Zone(_) => true,
        Selector::Cidr(net) => {
            let single = net.addr().is_ipv4() && net.prefix_len() == 32;
            net.addr().is_multicast() || single || net.prefix_len() == 0
        }
        Selector::Device(_)
        | Selector::Label(_)
        | Selector::Internet
        | Selector::Name(_)
        | Selector::Router => false,
    });
    if !asks_many && !to.is_empty() {
        problems.add(
            path,
            "is for rules to a group or broadcast address; `to` names none, as cidr:224.0.0.251/32",
        )?;
    }
    let udp = Service::of(number::UDP.into(), 0, 0xffff);
    let asks_by_udp = |it: &Service| it.first <= udp.last && it.last >= udp.first;
    if !services.iter().any(asks_by_udp) {
        problems.add(path, "is for UDP, which is none of the rule's services")?;
    }
    read_list(i, "answers_from", &rule.answers_from, ends, problems)
}

fn read_selectors(
    i: usize,
    end: &str,
    texts: &[String],
    ends: &Ends<'_>,
    problems: &mut Problems,
) -> Result<Vec<Selector>, Full> {
    if texts.is_empty() {
        problems.add(
            format_args!("rules[{i}].{end}"),
            "missing; list at least one end, or `any` for everything but the router",
        )?;
    }
    read_list(i, end, texts, ends, problems)
}

fn read_list(
    i: usize,
    end: &str,
    texts: &[String],
    ends: &Ends<'_>,
    problems: &mut Problems,
) -> Result<Vec<Selector>, Full> {
    let mut selectors = Vec::with_capacity(texts.len());
    for (j, text) in texts.iter().enumerate() {
        let path = format_args!("rules[{i}].{end}[{j}]");
        let read = match text.split_once(':') {
            None if text == "any" => Some(Selector::Any),
            None if text == "router" => Some(Selector::Router),
            None if text == "internet" => Some(Selector::Internet),
            Some(("zone", name)) => ends
                .zones
                .read(name, path, problems)?
                .map(|at| Selector::Zone(ZoneIndex(at))),
            Some(("device", name)) => ends
                .devices
                .read(name, path, problems)?
                .map(|at| Selector::Device(DeviceIndex(at))),
            Some(("label", label)) => match ends.labels.read(label) {
                Ok(at) => Some(Selector::Label(at)),
                Err(message) => {
                    problems.add(path, message)?;
                    None
                }
            },
            Some(("cidr", prefix)) => match parse_prefix(prefix) {
                Ok(prefix) => Some(Selector::Cidr(prefix)),
                Err(message) => {
                    problems.add(path, message)?;
                    None
                }
            },
            Some(("name", name)) => match name.parse() {
                Ok(name) => Some(Selector::Name(name)),
                Err(message) => {
                    problems.add(path, message)?;
                    None
                }
            },
            None | Some(_) => {
                problems.add(path, no_selector(text, ends))?;
                None
            }
        };
        selectors.extend(read);
    }
    selectors.sort_unstable();
    selectors.dedup();
    Ok(selectors)
}

fn no_selector(text: &str, ends: &Ends<'_>) -> String {
    let quoted = Quoted(text);
    let meant = if ends.zones.find(text).is_some() {
        "zone:"
    } else if ends.devices.find(text).is_some() {
        "device:"
    } else if text.parse::<IpNet>().is_ok() {
        "cidr:"
    } else if let Ok(address) = text.parse::<IpAddr>() {
        let prefix = IpNet::from(address);
        return format!("{quoted} is no selector; did you mean \"cidr:{prefix}\"?");
    } else {
        return format!(
            "{quoted} is no selector; one of zone:NAME, device:NAME, label:KEY=VALUE, \
             cidr:PREFIX, name:NAME, internet, router, any"
        );
    };
    format!("{quoted} is no selector; did you mean \"{meant}{text}\"?")
}

fn read_rule_services(
    i: usize,
    rule: &v1::Rule,
    ends: &Ends<'_>,
    problems: &mut Problems,
) -> Result<Vec<Service>, Full> {
    let mut services = Vec::with_capacity(rule.services.len());
    if rule.services.is_empty() {
        services.push(Service::ALL);
        if rule.action == v1::Action::Allow as i32 {
            let path = format_args!("rules[{i}].services");
            let message = "missing; an allow rule lists what it allows, as a service's name or tcp/443; \
                           everything is tcp/*, udp/*, icmp/* and icmpv6/*";
            problems.demand(path, message)?;
        }
    }
    for (j, text) in rule.services.iter().enumerate() {
        let path = format_args!("rules[{i}].services[{j}]");
        if text.contains('/') {
            match text.parse() {
                Ok(service) => services.push(service),
                Err(ServiceError(message)) => problems.add(path, message)?,
            }
        } else if let Some(at) = ends.services.names.read(text, path, problems)? {
            services.extend(&ends.services.ports[at]);
        }
    }
    if rule.action == v1::Action::Allow as i32 {
        let named = services.into_iter();
        services = named.flat_map(Service::without_tunnels).collect();
    }
    Ok(merge(services))
}
