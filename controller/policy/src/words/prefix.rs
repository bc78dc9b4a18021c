//! Addresses and prefixes that a document may name.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::problem::Quoted;

pub(crate) fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let quoted = Quoted(text);
    if let Ok(address) = text.parse::<IpAddr>() {
        let prefix = IpNet::from(address);
        return Err(format!("{quoted} has no prefix length; write {prefix}"));
    }
    let prefix: IpNet = text.parse().map_err(|_| {
        format!("{quoted} is not a prefix; write it as 10.20.0.0/16 or 2001:db8::/32")
    })?;
    let right = prefix.trunc();
    if prefix != right {
        return Err(format!("{quoted} has host bits set; the prefix is {right}"));
    }
    if let IpNet::V6(v6) = prefix
        && let (Some(mapped), Some(length)) =
            (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    {
        return Err(format!("{quoted} is IPv4 in IPv6; write {mapped}/{length}"));
    }
    Ok(prefix)
}

/// Refuses prefixes that no zone can own: groups, the loopback, and IPv6 link-local.
pub(crate) fn ordinary_prefix(prefix: IpNet) -> Result<IpNet, String> {
    let inside = |outer: IpNet| outer.contains(&prefix);
    let [v4_group, v4_loop] = [([224, 0, 0, 0], 4), ([127, 0, 0, 0], 8)]
        .map(|(address, length)| IpNet::V4(Ipv4Net::new_assert(address.into(), length)));
    let [v6_group, v6_loop, v6_link] = [
        ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
        ([0, 0, 0, 0, 0, 0, 0, 1], 128),
        ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    ]
    .map(|(address, length)| IpNet::V6(Ipv6Net::new_assert(address.into(), length)));
    if inside(v4_group) || inside(v6_group) {
        return Err(format!("{prefix} is multicast, which is in no zone"));
    }
    if inside(v4_loop) || inside(v6_loop) {
        return Err(format!("{prefix} is loopback, which is in no zone"));
    }
    if inside(v6_link) {
        return Err(format!(
            "{prefix} is link-local, which is every device's own and never listed"
        ));
    }
    Ok(prefix)
}

pub(crate) fn parse_address(text: &str) -> Result<IpAddr, String> {
    let quoted = Quoted(text);
    let address: IpAddr = text.parse().map_err(|_| match text.parse::<IpNet>() {
        Ok(prefix) => format!(
            "{quoted} is a prefix; write the address, as {}",
            prefix.addr()
        ),
        Err(_) => format!("{quoted} is not an address; write it as 10.20.1.11 or 2001:db8::11"),
    })?;
    let refuse = |what: &str| {
        Err(format!(
            "{address} is {what}; write the device's own address"
        ))
    };
    if address.is_unspecified() {
        return refuse("the unspecified address");
    }
    if address.is_loopback() {
        return refuse("loopback");
    }
    if address.is_multicast() {
        return refuse("multicast");
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => refuse("the broadcast address"),
        IpAddr::V4(v4) if v4.is_link_local() => refuse("link-local"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(format!(
            "{address} is link-local, which is the device's own and never listed; leave it out"
        )),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(format!("{address} is IPv4 in IPv6; write {v4}")),
            None => Ok(address),
        },
        IpAddr::V4(_) => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(read: Result<T, String>, cure: &str) {
        let why = read.expect_err(cure);
        assert!(why.contains(cure), "{why}");
    }

    #[test]
    fn a_prefix_is_read_as_it_must_be_written() {
        for text in ["10.20.0.0/16", "2001:db8::/32", "0.0.0.0/0", "::/0"] {
            assert_eq!(
                parse_prefix(text).map(|net| net.to_string()).as_deref(),
                Ok(text)
            );
        }
        refused(parse_prefix("10.20.0.1"), "write 10.20.0.1/32");
        refused(parse_prefix("10.20.0.1/16"), "the prefix is 10.20.0.0/16");
        refused(parse_prefix("::ffff:10.0.0.0/104"), "write 10.0.0.0/8");
        refused(parse_prefix("pumps"), "is not a prefix");
    }

    #[test]
    fn no_zone_owns_groups_the_loopback_or_the_link() {
        let ordinary = |text: &str| parse_prefix(text).and_then(ordinary_prefix);
        for (text, why) in [
            ("224.0.0.0/24", "multicast"),
            ("ff02::/16", "multicast"),
            ("127.0.0.0/8", "loopback"),
            ("::1/128", "loopback"),
            ("fe80::/64", "link-local"),
        ] {
            refused(ordinary(text), why);
        }
        // A wider prefix that only contains them is allowed.
        assert!(ordinary("0.0.0.0/0").is_ok() && ordinary("::/0").is_ok());
    }

    #[test]
    fn an_address_is_one_that_a_device_can_send_from() {
        for text in ["10.20.1.11", "2001:db8::11", "fd00::1"] {
            assert_eq!(
                parse_address(text).map(|it| it.to_string()).as_deref(),
                Ok(text)
            );
        }
        for (text, why) in [
            (
                "10.20.0.0/16",
                "is a prefix; write the address, as 10.20.0.0",
            ),
            ("0.0.0.0", "the unspecified address"),
            ("255.255.255.255", "the broadcast address"),
            ("239.1.2.3", "multicast"),
            ("127.0.0.1", "loopback"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "leave it out"),
            ("::ffff:10.0.0.1", "write 10.0.0.1"),
            ("pump", "is not an address"),
        ] {
            refused(parse_address(text), why);
        }
    }
}
