//! What a DHCP client's message says of its sender: who it is, and which addresses it gives back.

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

/// RFC 2132.
fn told_v4(data: &[u8], mac: Mac) -> Option<Told> {
    let address = |octets: &[u8]| {
        let octets: [u8; 4] = octets.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    };
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
    if found.contains_key(&52) {
        return None;
    }
    let gives_back = match found.get(&53)? {
        [1 | 3 | 8] => Vec::new(),
        [4] => vec![address(found.get(&50)?)?],
        [7] => vec![address(&data[12..16])?],
        _ => return None,
    };
    let by_mac = || [&[1], mac.as_slice()].concat();
    let identifier = found.get(&61).map_or_else(by_mac, |it| it.to_vec());
    Some(Told {
        identifier: Some(identifier),
        gives_back,
    })
}

/// RFC 8415, 21.
fn told_v6(data: &[u8]) -> Option<Told> {
    let mut told = Told::default();
    let mut prefixes = false;
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
        prefixes |= code == 25;
        let inner = options_v6(inner)?;
        count += inner.len();
        for (code, value) in inner {
            match code {
                1 | 3 | 4 | 25 => return None,
                5 => {
                    value.get(..24)?;
                    let octets: [u8; 16] = value[..16].try_into().ok()?;
                    told.gives_back.push(Ipv6Addr::from(octets).into());
                }
                _ => {}
            }
        }
    }
    // Release, decline.
    let gives_back = matches!(data[0], 8 | 9);
    if count > 32 || gives_back && (prefixes || told.gives_back.len() > 4) {
        return None;
    }
    if !gives_back {
        told.gives_back.clear();
    }
    Some(told)
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
