//! What becomes of a flow that is taken over from another version's table?

use wardline_ebpf::{
    abi::{Address, Carried, FlowEntry, FlowKey, NEVER, gauge, state},
    flows::{self, Carrying},
    packet::number,
};

use crate::sweep::{DEVICE, RULE, START, Tables};

/// A TCP flow of the device with an answer, of whose packets the first is credited already.
fn carried() -> Carried {
    Carried {
        key: FlowKey {
            low: Address::v4([10, 0, 0, 1]),
            high: Address::v4([10, 0, 0, 2]),
            ports: 4000 << 48 | 443 << 32 | u64::from(number::TCP),
        },
        bind: [0x0200_0000_0101 << 16 | 3, 2],
        bytes: [300, 100],
        counted_bytes: 60,
        packets: [3, 1],
        counted_packets: 1,
        devices: [DEVICE, 0],
        rule: RULE,
        until: NEVER,
        would: 0,
        state: 5 << 20 | state::ANSWERED | state::CONFIRMED,
        last: START - 100,
        what: Carried::OPEN,
        reserved: 0,
    }
}

fn carry(tables: &Tables<'_>, carried: &Carried) {
    flows::carry(tables, &tables.settings, &mut Carrying::default(), carried);
}

/// The only flow of the table, and the tick of its last packet.
fn only<'a>(tables: &'a Tables<'_>) -> (&'a FlowEntry, u32) {
    let ways: Vec<usize> = (0..tables.bucket.ways.len())
        .filter(|way| tables.bucket.tags[*way].load() != 0)
        .collect();
    assert_eq!(ways.len(), 1);
    (
        &tables.bucket.ways[ways[0]],
        tables.bucket.last[ways[0]].load(),
    )
}

fn packets(entry: &FlowEntry) -> ([u32; 2], [u64; 2]) {
    let flow = &entry.flow;
    (
        [0, 1].map(|leg| flow.packets[leg].load()),
        [0, 1].map(|leg| flow.bytes(leg)),
    )
}

#[test]
fn a_flow_goes_on_as_it_was_and_is_judged_anew() {
    let tables = Tables::new(&|_| ());
    carry(&tables, &carried());
    let (entry, last) = only(&tables);
    let (flow, ends) = (&entry.flow, &entry.ends);
    assert_eq!(flow.state.load(), carried().state);
    assert_eq!([0, 1].map(|leg| flow.bind[leg].load()), carried().bind);
    assert_eq!(packets(entry), ([3, 1], [300, 100]));
    assert_eq!((ends.packets.load(), ends.bytes.load()), (1, 60));
    assert_eq!(
        (ends.rule.load(), ends.until.load(), last),
        (RULE, NEVER, START - 100)
    );
    assert_eq!((flow.cell(0), ends.devices[0].load()), (DEVICE, DEVICE));
    // No epoch of these tables is this one or comes to it.
    assert_eq!(flow.stamp.load(), u32::MAX);
    assert_eq!(
        (tables.quota.answered.load(), tables.quota.unanswered.load()),
        (1, 0)
    );

    // The second time it stays as it is.
    carry(&tables, &carried());
    assert_eq!(packets(only(&tables).0), ([3, 1], [300, 100]));
    assert_eq!(tables.left().1, 1);
    // When it ends its rule has all of its packets.
    let tick = START + tables.settings.tcp_established;
    flows::sweep(&tables, &tables.settings, tick);
    assert_eq!((tables.left().1, tables.credit.get()), (0, (3, 340)));
}

#[test]
fn what_was_seen_of_it_since_is_added() {
    let tables = Tables::new(&|_| ());
    let opened = Carried {
        state: 0,
        ..carried()
    };
    carry(&tables, &opened);
    assert_eq!(tables.quota.unanswered.load(), 1);
    let since = Carried {
        packets: [1, 2],
        bytes: [10, 20],
        counted_packets: 0,
        counted_bytes: 0,
        state: state::ANSWERED | state::CONFIRMED | state::FIN_HIGH,
        what: Carried::SINCE,
        ..carried()
    };
    carry(&tables, &since);
    let (entry, _) = only(&tables);
    assert_eq!(packets(entry), ([4, 3], [310, 120]));
    assert_eq!(entry.flow.state.load(), since.state);
    assert_eq!(
        (tables.quota.unanswered.load(), tables.quota.answered.load()),
        (0, 1)
    );
    // A reset takes marks away: what has come here since counts.
    entry.flow.state.store(state::RESET | state::CONFIRMED);
    carry(&tables, &since);
    assert_eq!(entry.flow.state.load(), state::RESET | state::CONFIRMED);
    // Another end is the opener now: it is another flow with the same key.
    entry.flow.state.store(state::OPENER_HIGH);
    carry(&tables, &since);
    assert_eq!(entry.flow.state.load(), state::OPENER_HIGH);
}

#[test]
fn what_has_ended_only_counts() {
    // It has ended here since it was carried.
    let tables = Tables::new(&|_| ());
    let since = Carried {
        what: Carried::SINCE,
        ..carried()
    };
    carry(&tables, &since);
    assert_eq!((tables.left().1, tables.credit.get()), (0, (3, 340)));
    // It was silent for too long.
    let tables = Tables::new(&|_| ());
    let silent = Carried {
        last: START.wrapping_sub(tables.settings.tcp_established + 1),
        ..carried()
    };
    carry(&tables, &silent);
    assert_eq!((tables.left().1, tables.credit.get()), (0, (3, 340)));
}

#[test]
fn without_room_it_is_counted_and_said() {
    let mut tables = Tables::new(&|_| ());
    tables.settings.flows_per_device = 0;
    carry(&tables, &carried());
    assert_eq!((tables.left().1, tables.credit.get()), (0, (3, 340)));
    assert_eq!(tables.gauges[gauge::NOT_CARRIED as usize].load(), 1);
}
