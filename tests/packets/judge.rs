//! Verdicts of the programs in the kernel on a frame, by `BPF_PROG_TEST_RUN`.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use wardline_datapath::{Datapath, Hook, observe, timeouts::Timeouts};
use wardline_ebpf::abi::{Counter, Reason};
use wardline_host_tests::judge::{At, join_ports, limits};
use wardline_oracle::random::ROUTER_MAC;
use wardline_policy::{inventory::Inventory, limits::Limits, words::mac::Mac};
use wardline_tests::Lab;

/// Runs `work` in a namespace of its own that has these interfaces.
pub(crate) fn in_namespace<T: Send>(
    name: &str,
    interfaces: &[&str],
    work: impl FnOnce() -> T + Send,
) -> T {
    let lab = Lab::new(name).unwrap();
    let router = lab.router().clone();
    for interface in interfaces {
        router
            .ip(&format!(
                "link add {interface} type veth peer name {interface}-far"
            ))
            .unwrap();
    }
    router.run(work).unwrap()
}

/// The verdict of a program in the kernel: whether the frame passed, and the reason whose counter
/// moved; none for a pass that another hook has counted.
pub(crate) fn kernel(
    datapath: &mut Datapath,
    hook: Hook,
    at: At,
    frame: &[u8],
) -> (bool, Option<Reason>) {
    try_kernel(datapath, hook, at, frame).unwrap_or_else(|error| panic!("{error}"))
}

/// The same, for a frame that the kernel may refuse to run.
pub(crate) fn try_kernel(
    datapath: &mut Datapath,
    hook: Hook,
    at: At,
    frame: &[u8],
) -> Result<(bool, Option<Reason>), String> {
    let mut counted = datapath.reader().reasons().unwrap();
    counting(datapath, &mut counted, hook, at, frame)
}

/// The same, for callers that keep the counters as last read.
pub(crate) fn counting(
    datapath: &mut Datapath,
    counted: &mut BTreeMap<Reason, Counter>,
    hook: Hook,
    at: At,
    frame: &[u8],
) -> Result<(bool, Option<Reason>), String> {
    let (ifindex, from) = match at {
        At::Entering { ifindex } => (ifindex, 0),
        At::Leaving { ifindex, from } => (ifindex, from),
    };
    let passed = datapath
        .run(hook, ifindex, from, frame)
        .map_err(|error| format!("{error:?}"))?;
    let after = datapath.reader().reasons().unwrap();
    let moved: Vec<Reason> = after
        .iter()
        .filter(|(reason, counter)| counter.packets != counted[reason].packets)
        .map(|(reason, _)| *reason)
        .collect();
    *counted = after;
    match moved.as_slice() {
        [] => Ok((passed, None)),
        [reason] => Ok((passed, Some(*reason))),
        _ => Err(format!("one packet, several reasons: {moved:?}")),
    }
}

/// Whether the kernel itself refuses to make a packet of a frame: one without an Ethernet header,
/// and at TC one of an EtherType for IP without an IP header.
pub(crate) fn makes_no_packet(hook: Hook, frame: &[u8]) -> bool {
    let header = match frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 0,
    };
    frame.len() < 14 || hook != Hook::Xdp && frame.len() < 14 + header
}

/// A datapath of its own, with nothing pinned.
pub(crate) fn datapath() -> Datapath {
    datapath_of(&limits())
}

/// The same, with tables of some size.
pub(crate) fn datapath_of(limits: &Limits) -> Datapath {
    Datapath::open(None, limits, &timeouts()).unwrap()
}

pub(crate) fn timeouts() -> Timeouts {
    let second = Duration::from_secs;
    Timeouts {
        tcp_unanswered: second(30),
        tcp_established: second(7440),
        tcp_closing: second(10),
        udp: second(30),
        udp_answered: second(180),
        icmp: second(30),
        adoption: second(10),
        names: second(60),
    }
}

/// The interfaces of the namespace that the thread is in, with these addresses and the MAC that
/// frames of the router have in tests.
pub(crate) fn observed(addresses: &[IpAddr]) -> Inventory {
    let mut inventory = seen();
    for link in inventory.links.values_mut() {
        link.mac = Some(Mac(ROUTER_MAC));
    }
    inventory.addresses = addresses.iter().copied().collect();
    join_ports(&mut inventory);
    inventory
}

/// The interfaces of the namespace that the thread is in, as they are.
pub(crate) fn seen() -> Inventory {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(observe::observe()).unwrap()
}
