//! What a DHCP client's message says of its sender: who it is, and which addresses it gives back. What
//! a server's answer gives to a client.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::dissect::{Ip, Mac, Upper};

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// By what the server knows the client.
    pub identifier: Option<Vec<u8>>,
    /// Addresses that it wants no more.
    pub gives_back: Vec<IpAddr>,
}

/// What a client has asked for last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub transaction: Vec<u8>,
    /// Where.
    pub interface: String,
    /// The address that it named, of DHCPv4.
    pub wanted: Option<IpAddr>,
}

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub client: Mac,
    pub transaction: Vec<u8>,
    pub says: Says,
}

/// What an answer says of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// The client has these, or, with a lifetime of nothing, has them no more.
    Has(Vec<(IpAddr, bool)>),
    /// The client may not have what it asked for.
    Refuses,
}

/// The identifiers that one sender may use.
pub(super) const IDENTIFIERS: usize = 4;

/// Reads a client's message; none when it can't be read in one way only.
pub(super) fn told(ip: &Ip, mac: Mac) -> Option<Told> {
    let Upper::Udp { data, .. } = &ip.upper else {
        return None;
    };
    let told = if ip.source.is_ipv4() {
        told_v4(data, mac)?
    } else {
        told_v6(data)?
    };
    let length = told.identifier.as_ref().map_or(1, Vec::len);
    (1..=135).contains(&length).then_some(told)
}

/// What a client asks for, from a message that it may send.
pub(super) fn asked(ip: &Ip, interface: &str) -> Option<Asked> {
    let Upper::Udp { data, .. } = &ip.upper else {
        return None;
    };
    let transaction = data.get(transaction(ip))?.to_vec();
    let wanted = if ip.source.is_ipv4() {
        let named = options_v4(data)?.get(&50).and_then(|it| v4(it));
        named.or_else(|| v4(&data[12..16]))
    } else {
        None
    };
    Some(Asked {
        transaction,
        interface: interface.to_owned(),
        wanted: wanted.filter(|it| !it.is_unspecified()),
    })
}

fn transaction(ip: &Ip) -> std::ops::Range<usize> {
    if ip.source.is_ipv4() { 4..8 } else { 1..4 }
}

/// Reads a server's answer to a client behind this MAC.
pub(super) fn answer(ip: &Ip, mac: Mac) -> Option<Answer> {
    let Upper::Udp { from, to, data } = &ip.upper else {
        return None;
    };
    let transaction = data.get(transaction(ip))?.to_vec();
    let (client, says) = if ip.source.is_ipv4() {
        let ports = (*from, *to) == (67, 68);
        if !ports || data.get(..3) != Some(&[2, 1, 6]) {
            return None;
        }
        let says = match options_v4(data)?.get(&53)? {
            [5] => Says::Has(vec![(v4(&data[16..20])?, true)]),
            [6] => Says::Refuses,
            _ => return None,
        };
        (data.get(28..34)?.try_into().ok()?, says)
    } else {
        if (*from, *to) != (547, 546) || data.first() != Some(&7) {
            return None;
        }
        let given = associations(data)?.addresses;
        if given.len() > 4 {
            return None;
        }
        (mac, Says::Has(given))
    };
    Some(Answer {
        client,
        transaction,
        says,
    })
}

fn v4(octets: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 4] = octets.try_into().ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(octets)))
}

/// The options of DHCPv4 that matter; RFC 2132.
fn options_v4(data: &[u8]) -> Option<BTreeMap<u8, &[u8]>> {
    let mut rest = data.get(236..)?.strip_prefix(&[99, 130, 83, 99])?;
    let mut found: BTreeMap<u8, &[u8]> = BTreeMap::new();
    let mut count = 0;
    while let [code, after @ ..] = rest {
        count += 1;
        if count > 128 {
            return None;
        }
        match code {
            0 => rest = after,
            255 => break,
            _ => {
                let (length, after) = after.split_first()?;
                let (value, after) = after.split_at_checked(usize::from(*length))?;
                if matches!(code, 50 | 52 | 53 | 61) && found.insert(*code, value).is_some() {
                    return None;
                }
                rest = after;
            }
        }
    }
    // Options that go on in other fields.
    (!found.contains_key(&52)).then_some(found)
}

fn told_v4(data: &[u8], mac: Mac) -> Option<Told> {
    let found = options_v4(data)?;
    let gives_back = match found.get(&53)? {
        [1 | 3 | 8] => Vec::new(),
        [4] => vec![v4(found.get(&50)?)?],
        [7] => vec![v4(&data[12..16])?],
        _ => return None,
    };
    let by_mac = || [&[1], mac.as_slice()].concat();
    let identifier = found.get(&61).map_or_else(by_mac, |it| it.to_vec());
    Some(Told {
        identifier: Some(identifier),
        gives_back,
    })
}

/// What the options of DHCPv6 hold.
#[derive(Default)]
struct Associations {
    identifier: Option<Vec<u8>>,
    /// Addresses, and whether they are valid for any time.
    addresses: Vec<(IpAddr, bool)>,
    prefixes: bool,
}

/// RFC 8415, 21.
fn associations(data: &[u8]) -> Option<Associations> {
    let mut told = Associations::default();
    let outer = options_v6(data.get(4..)?)?;
    let mut count = outer.len();
    for (code, value) in outer {
        let inner = match code {
            1 => {
                if told.identifier.replace(value.to_vec()).is_some() {
                    return None;
                }
                continue;
            }
            3 | 25 => value.get(12..)?,
            4 => value.get(4..)?,
            // An address stands in an association.
            5 => return None,
            _ => continue,
        };
        told.prefixes |= code == 25;
        let inner = options_v6(inner)?;
        count += inner.len();
        for (code, value) in inner {
            match code {
                1 | 3 | 4 | 25 => return None,
                5 => {
                    let valid = value.get(20..24)? != [0; 4];
                    let octets: [u8; 16] = value[..16].try_into().ok()?;
                    let address = Ipv6Addr::from(octets).into();
                    told.addresses.push((address, valid));
                }
                _ => {}
            }
        }
    }
    (count <= 32).then_some(told)
}

fn told_v6(data: &[u8]) -> Option<Told> {
    let Associations {
        identifier,
        addresses,
        prefixes,
    } = associations(data)?;
    let mut gives_back = Vec::new();
    // Release, decline.
    if matches!(data[0], 8 | 9) {
        if prefixes || addresses.len() > 4 {
            return None;
        }
        gives_back = addresses.into_iter().map(|(address, _)| address).collect();
    }
    Some(Told {
        identifier,
        gives_back,
    })
}

/// Codes and values; none when one reaches beyond the end.
fn options_v6(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut options = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let [code, length] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_be_bytes);
        let (value, rest) = rest.split_at_checked(usize::from(length))?;
        options.push((code, value));
        bytes = rest;
    }
    Some(options)
}
