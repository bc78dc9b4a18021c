//! How many addresses may the devices at a port learn, and what frees one?

use jiff::Timestamp;
use wardline_ebpf::{
    abi::{Address, Settings, gauge, holder, learned_index},
    learning::{Claim, learn},
    lookup::Lookup as _,
};
use wardline_policy::{
    model::Model,
    numbers::{number_of, numbered},
};

use crate::judge::{Compiled, clock, inventory, model_for, parsed, ticks};

const LAN1: u32 = 10;
const LAN2: u32 = 11;

/// Devices that learn.
struct Guests(Compiled);

impl Guests {
    fn new() -> Self {
        let policy = parsed(
            r#"
version: 1
zones: [{name: guests, subnets: [10.1.0.0/16]}]
ports: [{interface: lan*, zone: guests}]
devices:
  - {name: one, zone: guests, macs: ["02:00:00:00:00:01"]}
  - {name: two, zone: guests, macs: ["02:00:00:00:00:02"]}
"#,
        );
        let inventory = inventory(&["lan1", "lan2"], &[]);
        Self(Compiled::new(
            &policy,
            &inventory,
            clock(Timestamp::UNIX_EPOCH),
        ))
    }

    fn device(&self, name: &str) -> u64 {
        holder(number_of(&self.0.ids, numbered::DEVICE, name), 0)
    }

    fn model(&self) -> Model<'_> {
        let settings = Settings {
            learned_per_device: 4,
            learned_per_port: 6,
            ..Settings::for_flows(64)
        };
        model_for(&self.0, settings)
    }
}

fn address(n: u8) -> Address {
    Address::v4([10, 1, 0, n])
}

fn claim<'a>(model: &Model<'_>, holder: u64, address: &'a Address, interface: u32) -> Claim<'a> {
    Claim {
        slot: 0,
        address,
        holder,
        zone: 1,
        interface,
        tick: model.tick(),
        leased: false,
    }
}

/// Whether a holder gets an address that it claims at a port.
fn learns(model: &Model<'_>, holder: u64, address: Address, interface: u32) -> bool {
    learn(model, &claim(model, holder, &address, interface))
}

/// Notes an address as a holder's, whoever may have it.
fn note(model: &Model<'_>, holder: u64, n: u8) {
    let address = address(n);
    let granted = claim(model, holder, &address, LAN1).granted();
    assert!(model.note_learned(&address, granted));
}

fn owner(model: &Model<'_>, n: u8) -> Option<u64> {
    model
        .learned(&address(n))
        .map(|learned| learned.holder.load())
}

#[test]
fn a_port_has_a_bound_of_its_own() {
    let guests = Guests::new();
    let (one, two) = (guests.device("one"), guests.device("two"));
    let model = guests.model();
    let learned = |holder, n, port| learns(&model, holder, address(n), port);
    assert!((1..=4).all(|n| learned(one, n, LAN1)));
    assert!(!learned(one, 5, LAN1) && !learned(one, 5, LAN2));
    assert!((5..=6).all(|n| learned(two, n, LAN1)));
    assert!(!learned(two, 7, LAN1) && owner(&model, 7).is_none());
    // There is room at another port, and for the other family.
    assert!(learned(two, 7, LAN2));
    let other_family = Address::v6(&[0xfd; 16]);
    assert!(learns(&model, two, other_family, LAN1));
    let count = |index| model.learned_at(index).map(|count| count.load());
    assert_eq!(count(learned_index(LAN1, true)), Some(6));
    assert_eq!(count(learned_index(LAN1, false)), Some(1));
    assert_eq!(model.gauge(gauge::LEARNED).map(|all| all.load()), Some(8));
}

#[test]
fn silence_frees_an_address_and_only_while_the_daemon_looks() {
    let guests = Guests::new();
    let (one, two) = (guests.device("one"), guests.device("two"));
    let model = guests.model();
    let start = model.tick();
    let learned = |holder, n| learns(&model, holder, address(n), LAN1);
    assert!((1..=4).all(|n| learned(one, n)) && learned(two, 10));
    // A device's own address makes room for another; the count stays.
    model.set_tick(start + ticks(901));
    assert!(learned(one, 5));
    assert_eq!((owner(&model, 4), owner(&model, 5)), (None, Some(one)));
    let at_port = model.learned_at(learned_index(LAN1, true)).unwrap();
    assert_eq!(at_port.load(), 5);
    assert!(!learned(two, 1));

    model.set_tick(start + ticks(3601));
    let kept = model.gauge(gauge::LEARNED_KEPT).unwrap();
    let until = kept.load();
    kept.store(start);
    assert!(!learned(two, 1) && !learned(one, 6));
    kept.store(until);
    assert!(learned(two, 1));
    assert_eq!((owner(&model, 1), at_port.load()), (Some(two), 5));
    // The place that the other device had for it is free again.
    assert!(learned(one, 6));
    assert_eq!(owner(&model, 2), Some(one));
}

#[test]
fn an_address_of_a_device_that_is_gone_is_free() {
    let guests = Guests::new();
    let (one, gone) = (guests.device("one"), holder(200, 0));
    let model = guests.model();
    note(&model, gone, 1);
    assert!(learns(&model, one, address(1), LAN1));
    assert_eq!(owner(&model, 1), Some(one));
}

#[test]
fn an_unlisted_mac_is_bound_as_a_device_is_and_gives_up_sooner() {
    let guests = Guests::new();
    let one = guests.device("one");
    let [guest, other] = [0x02_00_00_00_00_77, 0x02_00_00_00_00_78].map(|mac| holder(0, mac));
    let model = guests.model();
    let start = model.tick();
    let learned = |holder, n| learns(&model, holder, address(n), LAN1);
    assert!((1..=4).all(|n| learned(guest, n)));
    assert!(!learned(guest, 5) && !learned(other, 1) && !learned(one, 1));
    model.set_tick(start + ticks(901));
    assert!(learned(other, 1) && learned(one, 2));
    assert_eq!(
        (owner(&model, 1), owner(&model, 2)),
        (Some(other), Some(one))
    );
    // A MAC that is listed now keeps nothing that it had as an unlisted one.
    let listed = holder(0, 0x02_00_00_00_00_01);
    note(&model, listed, 9);
    assert!(learned(one, 9));
}
