//! What the router's own sockets listen on, as far as others can reach it.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader},
};

/// Most sockets that are looked at in one list. The kernel lists those that listen first.
const MOST: usize = 4096;
/// What the state of a socket is called there: one of TCP that listens, one of UDP without a peer.
const LISTENS: &str = "0A";
const UNCONNECTED: &str = "07";

/// What sockets of this network namespace listen on, as `tcp/22`, without those on the loopback only.
/// What can't be read is left out.
pub fn services() -> Vec<String> {
    let mut found = BTreeSet::new();
    for (file, protocol, state) in [
        ("tcp", "tcp", LISTENS),
        ("tcp6", "tcp", LISTENS),
        ("udp", "udp", UNCONNECTED),
        ("udp6", "udp", UNCONNECTED),
    ] {
        // The file is missing where a kernel has no IPv6.
        let Ok(file) = File::open(format!("/proc/thread-self/net/{file}")) else {
            continue;
        };
        // The first line is a heading.
        let lines = BufReader::new(file).lines().skip(1).take(MOST);
        let ports = lines.map_while(Result::ok);
        let ports = ports.filter_map(|line| open_port(&line, state));
        found.extend(ports.map(|port| (protocol, port)));
    }
    let found = found.into_iter();
    found
        .map(|(protocol, port)| format!("{protocol}/{port}"))
        .collect()
}

/// The port of a socket in this state that others can reach.
fn open_port(line: &str, state: &str) -> Option<u16> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, _, its_state) = (words.next()?, words.next()?, words.next()?);
    let (address, port) = local.split_once(':')?;
    (its_state == state && !is_loopback(address)).then(|| u16::from_str_radix(port, 16).ok())?
}

/// Whether an address is the loopback's, in the form of these lists: each four bytes in the order of the
/// processor.
fn is_loopback(address: &str) -> bool {
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|at| {
            let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect();
    match words.as_deref() {
        Some([v4]) => v4[0] == 127,
        Some([a, b, c, v4]) => {
            let before = [*a, *b, *c].concat();
            let mapped = before == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
            (mapped && v4[0] == 127) || (before == [0; 12] && *v4 == [0, 0, 0, 1])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn what_others_can_reach_is_listed() {
        crate::observe::tests::in_a_namespace(async {
            assert_eq!(services(), [""; 0]);
            let open = [
                TcpListener::bind("0.0.0.0:0").expect("a listener"),
                TcpListener::bind("[::]:0").expect("a listener"),
            ];
            let datagrams = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            let mut expected: Vec<_> = open
                .iter()
                .map(|it| format!("tcp/{}", it.local_addr().expect("an address").port()))
                .collect();
            expected.push(format!(
                "udp/{}",
                datagrams.local_addr().expect("an address").port()
            ));
            let mut found = services();
            found.sort();
            expected.sort();
            assert_eq!(found, expected);
        });
    }

    #[test]
    fn what_only_the_router_reaches_is_left_out() {
        let port = |address: &str, state: &str| {
            open_port(
                &format!("  0: {address}:0016 00000000:0000 {state} more"),
                LISTENS,
            )
        };
        let loopback = u32::from_ne_bytes([127, 0, 0, 1]);
        let one = u32::from_ne_bytes([0, 0, 0, 1]);
        let mapped = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
        assert_eq!(port("00000000", "0A"), Some(22));
        assert_eq!(port("00000000", "01"), None, "connected");
        assert_eq!(port(&format!("{loopback:08X}"), "0A"), None);
        let v6 = |last: u32, third: u32| format!("{:016X}{third:08X}{last:08X}", 0);
        assert_eq!(port(&v6(0, 0), "0A"), Some(22));
        assert_eq!(port(&v6(one, 0), "0A"), None);
        assert_eq!(port(&v6(loopback, mapped), "0A"), None);
        assert_eq!(open_port("nonsense", LISTENS), None);
    }
}
