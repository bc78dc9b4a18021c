//! Finds out whether the router has NAT, and notices when that changes.
//!
//! Known are rules of nftables that rewrite addresses (those of `iptables-nft` are such), the table
//! `nat` of legacy iptables, and services of IPVS. Not known is what other programs do, such as a
//! filter of `tc`.

use std::{fs, io, path::Path};

use netlink_packet_core::{NLM_F_DUMP, NlasIterator, parse_string};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use wardline_policy::inventory::Nat;

use crate::netlink::{NLA_TYPE, exchange, is_missing};

const NFTABLES: u16 = 10 << 8;
const IPV4: u8 = libc::AF_INET as u8;
const IPV6: u8 = libc::AF_INET6 as u8;

/// Whether the router has NAT at present, as far as the kernel tells.
pub(crate) fn found() -> Nat {
    // A list that changed while the kernel sent it is incomplete; such changes are rare.
    const ATTEMPTS: usize = 20;
    let mut found = listed();
    for _ in 1..ATTEMPTS {
        if !matches!(&found, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
            break;
        }
        found = listed();
    }
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, "can't see whether nftables has NAT; what it rewrites is dropped");
        Nat::default()
    })
}

fn listed() -> io::Result<Nat> {
    let tables = Tables::read();
    let mut nat = Nat {
        v4: tables.v4 || tables.services,
        v6: tables.v6 || tables.services,
    };
    const GET_RULE: u16 = NFTABLES | 7;
    const EXPRESSIONS: u16 = 4;
    let rules = match exchange(NETLINK_NETFILTER, GET_RULE, NLM_F_DUMP, &[0; 4]) {
        // The kernel has no netfilter, or no nftables.
        Err(error) if is_missing(&error) => return Ok(nat),
        rules => rules?,
    };
    for rule in rules {
        let Some((&[family, ..], attributes)) = rule.split_at_checked(4) else {
            continue;
        };
        if let Some(expressions) = attribute(attributes, EXPRESSIONS) {
            let rewrites = rewrites(family, expressions);
            nat.v4 |= rewrites.v4;
            nat.v6 |= rewrites.v6;
        }
    }
    Ok(nat)
}

/// Notices when the rules have changed, whether or not they are of NAT.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    known: Option<(Option<u32>, Tables)>,
    lacks_nftables: bool,
}

impl Changes {
    /// Whether there may have been a change since the last time; true the first time.
    pub(crate) fn any(&mut self) -> bool {
        let now = (self.generation(), Tables::read());
        self.known.replace(now) != Some(now)
    }

    /// The number that nftables counts up with every change.
    fn generation(&mut self) -> Option<u32> {
        const GET_GENERATION: u16 = NFTABLES | 16;
        const ID: u16 = 1;
        // To ask makes the kernel look for the module, each time.
        if self.lacks_nftables && !Path::new("/sys/module/nf_tables").exists() {
            return None;
        }
        let answers = exchange(NETLINK_NETFILTER, GET_GENERATION, 0, &[0; 4]);
        self.lacks_nftables = answers.as_ref().is_err_and(is_missing);
        let answers = answers.ok()?;
        let mut ids = answers.iter().filter_map(|it| attribute(it.get(4..)?, ID));
        Some(u32::from_be_bytes(ids.next()?.try_into().ok()?))
    }
}

/// What is told by files instead of netlink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tables {
    /// Legacy iptables has the table `nat`.
    v4: bool,
    /// The same of ip6tables.
    v6: bool,
    /// IPVS has services.
    services: bool,
}

impl Tables {
    fn read() -> Self {
        // A file is missing where its part of the kernel is not loaded.
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
        };
        let has_nat = |file: &str| read(file).lines().any(|table| table == "nat");
        Self {
            v4: has_nat("ip_tables_names"),
            v6: has_nat("ip6_tables_names"),
            // The first three lines are a heading.
            services: read("ip_vs").lines().nth(3).is_some(),
        }
    }
}

/// The family whose packets a rule of nftables rewrites, by its expressions.
fn rewrites(family: u8, expressions: &[u8]) -> Nat {
    const INET: u8 = 1;
    const NETDEV: u8 = 5;
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    const FAMILY: u16 = 2;
    const TARGET: u16 = 1;
    // In a table of both families a rule may be for one.
    let mut of = match family {
        INET | NETDEV => None,
        family => Some(family),
    };
    let mut nat = Nat::default();
    let mut loads_family = false;
    for expression in NlasIterator::new(expressions).flatten() {
        let Some(name) = attribute(expression.value(), NAME) else {
            continue;
        };
        let name = parse_string(name).unwrap_or_default();
        let data = attribute(expression.value(), DATA).unwrap_or_default();
        let loaded = std::mem::take(&mut loads_family);
        match name.as_str() {
            "meta" => loads_family = is_family(data),
            "cmp" if loaded && of.is_none() => of = equals(data),
            "nat" => add(&mut nat, number(data, FAMILY).map(|family| family as u8)),
            "masq" | "redir" => add(&mut nat, of),
            // An extension of iptables.
            "target" => {
                let target = attribute(data, TARGET).and_then(|it| parse_string(it).ok());
                let rewrites =
                    |it: &str| matches!(it, "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP");
                if target.is_some_and(|it| rewrites(&it)) {
                    add(&mut nat, of);
                }
            }
            "payload" if writes_addresses(data, of) => add(&mut nat, of),
            _ => {}
        }
    }
    nat
}

fn add(nat: &mut Nat, family: Option<u8>) {
    nat.v4 |= family.is_none_or(|it| it == IPV4);
    nat.v6 |= family.is_none_or(|it| it == IPV6);
}

/// Whether an expression of kind `meta` loads the family of the packet.
fn is_family(meta: &[u8]) -> bool {
    const KEY: u16 = 2;
    const NFPROTO: u32 = 15;
    number(meta, KEY) == Some(NFPROTO)
}

/// The byte that an expression of kind `cmp` wants something to be equal to.
fn equals(cmp: &[u8]) -> Option<u8> {
    const OPERATION: u16 = 2;
    const DATA: u16 = 3;
    const VALUE: u16 = 1;
    const EQUAL: u32 = 0;
    let value = attribute(attribute(cmp, DATA)?, VALUE)?;
    (number(cmp, OPERATION) == Some(EQUAL)).then_some(*value.first()?)
}

/// Whether an expression of kind `payload` writes into the addresses of an IP header.
fn writes_addresses(payload: &[u8], family: Option<u8>) -> bool {
    const BASE: u16 = 2;
    const OFFSET: u16 = 3;
    const LENGTH: u16 = 4;
    const FROM: u16 = 5;
    const IP_HEADER: u32 = 1;
    let first = if family == Some(IPV4) { 12 } else { 8 };
    let end = number(payload, OFFSET).zip(number(payload, LENGTH));
    attribute(payload, FROM).is_some()
        && number(payload, BASE) == Some(IP_HEADER)
        && end.is_none_or(|(offset, length)| offset.saturating_add(length) > first)
}

/// The value of the attribute of a kind.
fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut attributes = NlasIterator::new(attributes).flatten();
    let found = attributes.find(|it| it.kind() & NLA_TYPE == kind)?;
    let (length, bytes) = (found.length() as usize, found.into_inner());
    bytes.get(4..length)
}

/// The same, of an attribute that is a number.
fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(
        attribute(attributes, kind)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INET: u8 = 1;

    /// An attribute, padded.
    fn with(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (4 + value.len()) as u16;
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
        let name = with(1, &[name.as_bytes(), &[0]].concat());
        with(1, &[name, with(2, &data.concat())].concat())
    }

    /// `meta nfproto`, compared with a family.
    fn of(family: u8) -> Vec<u8> {
        let key = with(2, &15u32.to_be_bytes());
        let value = with(3, &with(1, &[family]));
        let compare = [with(2, &0u32.to_be_bytes()), value];
        [expression("meta", &[key]), expression("cmp", &compare)].concat()
    }

    #[test]
    fn a_rule_rewrites_the_family_that_it_is_for() {
        let masquerade = || expression("masq", &[]);
        let only = |v4, v6| Nat { v4, v6 };
        let family = |family: u8| with(2, &u32::from(family).to_be_bytes());
        let word = |kind, number: u32| with(kind, &number.to_be_bytes());
        let write = |offset| {
            let data = [word(2, 1), word(3, offset), word(4, 4), word(5, 1)];
            expression("payload", &data)
        };
        let read = expression(
            "payload",
            &[word(1, 1), word(2, 1), word(3, 12), word(4, 4)],
        );
        let target = |name: &str| expression("target", &[with(1, name.as_bytes())]);
        for (table, rule, nat) in [
            (IPV4, masquerade(), only(true, false)),
            (IPV6, masquerade(), only(false, true)),
            (INET, masquerade(), only(true, true)),
            (INET, [of(IPV4), masquerade()].concat(), only(true, false)),
            (
                INET,
                [of(IPV6), expression("redir", &[])].concat(),
                only(false, true),
            ),
            (INET, expression("nat", &[family(IPV6)]), only(false, true)),
            (IPV4, target("DNAT\0"), only(true, false)),
            (IPV4, target("LOG\0"), only(false, false)),
            (IPV4, write(12), only(true, false)),
            (INET, [of(IPV6), write(24)].concat(), only(false, true)),
            // Another field of the header, and a match.
            (IPV4, write(4), only(false, false)),
            (IPV4, read, only(false, false)),
            (INET, of(IPV4), only(false, false)),
        ] {
            assert_eq!(rewrites(table, &rule), nat, "{table} {rule:?}");
        }
    }
}
