//! Reads resolvers, and checks where rules may name others by their names.

use std::{collections::BTreeSet, net::IpAddr};

use wardline_ebpf::abi::{Address, SELECTORS};
use wardline_proto::v1;

use crate::{
    document::Document,
    intent::{Rule, Selector},
    words::{
        domain::Domain,
        problem::{Full, Problems, Quoted},
    },
};

/// Most resolvers of a document.
const MAX_RESOLVERS: usize = 64;

/// The addresses of resolvers; sorted.
pub(super) fn read_resolvers(
    document: &Document,
    problems: &mut Problems,
) -> Result<Vec<IpAddr>, Full> {
    let mut resolvers = BTreeSet::new();
    for (i, resolver) in document.resolvers.iter().enumerate() {
        let path = format_args!("resolvers[{i}].address");
        let quoted = Quoted(&resolver.address);
        let Ok(address) = resolver.address.parse::<IpAddr>() else {
            problems.add(
                path,
                format_args!("{quoted} is no address; write it as 192.0.2.53 or 2001:db8::53"),
            )?;
            continue;
        };
        let known = Address::from(address);
        if known.is_group() || known.is_martian_source() || known.is_link_local() {
            problems.add(
                path,
                format_args!("{quoted} is not the address of one host that rules can name"),
            )?;
        } else if !resolvers.insert(address) {
            problems.add(path, format_args!("{quoted} is listed twice"))?;
        }
    }
    let count = document.resolvers.len();
    if count > MAX_RESOLVERS {
        problems.add(
            "resolvers",
            format_args!("{count} resolvers; a document has at most {MAX_RESOLVERS}"),
        )?;
    }
    Ok(resolvers.into_iter().collect())
}

/// Refuses names where they can't be kept: whoever opens a flow has an address and no name, and who may
/// not be reached by one name has others.
pub(super) fn check_names(i: usize, rule: &v1::Rule, problems: &mut Problems) -> Result<(), Full> {
    let lists = [("from", &rule.from), ("answers_from", &rule.answers_from)];
    for (field, selectors) in lists {
        for (j, _) in names(selectors) {
            problems.add(
                format_args!("rules[{i}].{field}[{j}]"),
                "a name may only stand in `to`: who sends a packet is known by its address",
            )?;
        }
    }
    if rule.action == v1::Action::Deny as i32 {
        for (j, _) in names(&rule.to) {
            problems.add(
                format_args!("rules[{i}].to[{j}]"),
                "a name is for allow rules: to deny the addresses that one device was told keeps \
                 nobody from the name; deny `internet` or cidr:PREFIX, and allow names",
            )?;
        }
    }
    Ok(())
}

fn names(selectors: &[String]) -> impl Iterator<Item = (usize, &String)> {
    let selectors = selectors.iter().enumerate();
    selectors.filter(|(_, text)| text.starts_with("name:"))
}

/// Refuses names that are of more selectors than a question is looked up for.
pub(super) fn check_nesting(rules: &[Rule], problems: &mut Problems) -> Result<(), Full> {
    let selectors = rules.iter().flat_map(|rule| &rule.to);
    let domains: BTreeSet<&Domain> = selectors
        .filter_map(|selector| match selector {
            Selector::Name(name) => Some(name),
            _ => None,
        })
        .collect();
    let below: BTreeSet<&str> = domains
        .iter()
        .filter(|it| it.is_below())
        .map(|it| it.name())
        .collect();
    for domain in domains {
        let around = domain.around().filter(|it| below.contains(it)).count();
        if around + 1 > SELECTORS {
            problems.add(
                "rules",
                format_args!(
                    "name:{domain} is inside {around} others that begin with `*.`; a name may be \
                     inside {}",
                    SELECTORS - 1
                ),
            )?;
        }
    }
    Ok(())
}
