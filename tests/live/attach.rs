//! How programs are attached: by links and by filters, across restarts and upgrades under traffic,
//! beside programs of other software, and with tags that XDP can't see.

mod bench;
mod reported;

use std::{collections::BTreeSet, fs};

use wardline_datapath::{Hook, attach::Way, error::AttachError, links};
use wardline_ebpf::abi::Reason;
use wardline_oracle::frames::{BROADCAST, Ethernet, Ipv4, Udp};
use wardline_tests::{eventually, ward::skip};

pub(crate) use self::bench::index;
use self::bench::{ALLOWED, Bench, FAR, OWN_PORT, PUMP, PUMP_MAC, QUIET};
use crate::live::foreign::{self, Does, Foreign, Kind};

const TC: [Hook; 2] = [Hook::TcIngress, Hook::TcEgress];
const XDP: [Hook; 3] = [Hook::Tags, Hook::Xdp, Hook::TcEgress];

/// Every way that a port is guarded: by links, by filters, or by both.
const WAYS: [(Way, &[Hook]); 4] = [
    (Way::Best, &TC),
    (Way::Best, &XDP),
    (Way::Clsact, &TC),
    (Way::Clsact, &XDP),
];

#[test]
fn an_upgrade_in_place_loses_nothing_and_lets_nothing_through() {
    for (way, hooks) in WAYS {
        let bench = Bench::new("upgrade");
        let mut first = bench.datapath();
        bench.attach(&mut first, way, hooks).unwrap();
        bench.assert_judged();
        let before = bench.programs();
        assert_eq!(before.len(), hooks.len(), "{way:?} {hooks:?}: {before:?}");
        let mut next = None;
        bench.under_traffic(|| {
            // The daemon ends, and the next one finds the attachments that it left.
            drop(first);
            let next = next.insert(bench.datapath());
            let found = bench.in_router(|| next.hooks().attached().unwrap());
            assert_eq!(found, BTreeSet::from([bench.lan1]), "{way:?}");
            // It takes them over even where it would attach in another way itself.
            bench.attach(next, Way::Best, hooks).unwrap();
        });
        let on = hooks.iter().copied().collect();
        assert_eq!(bench.attached(&next.unwrap()), on, "{way:?}");
        let by_filter = bench.filters().contains("wardline");
        assert_eq!(by_filter, way == Way::Clsact || !bench.has_tcx());
        // All programs of the new daemon are attached, and none of the old one.
        let after = bench.programs();
        assert_eq!(after.len(), hooks.len(), "{way:?} {hooks:?}: {after:?}");
        assert!(after.is_disjoint(&before), "{before:?} {after:?}");
        bench.lab.close().unwrap();
    }
}

#[test]
fn links_take_the_place_of_filters_under_traffic() {
    for hooks in [&TC[..], &XDP] {
        let bench = Bench::new("exchange");
        if !bench.has_tcx() {
            skip("TCX", "a kernel before 6.6");
            return;
        }
        let mut datapath = bench.datapath();
        bench.attach(&mut datapath, Way::Clsact, hooks).unwrap();
        let before = bench.programs();
        let exchange = || bench.in_router(|| datapath.hooks().exchange().unwrap());
        assert!(!exchange(), "others may come at once");
        bench.under_traffic(|| {
            assert!(eventually(bench::PATIENCE, exchange));
            assert!(!exchange(), "there is nothing left to exchange");
        });
        assert_eq!(bench.filters(), "");
        // An interface that is up would lose packets if it went.
        assert!(bench.has_qdisc());
        assert_eq!(bench.attached(&datapath), hooks.iter().copied().collect());
        assert_eq!(bench.programs(), before);
        // The next daemon exchanges what an earlier one has left.
        bench.attach(&mut datapath, Way::Best, &[]).unwrap();
        assert!(!bench.has_qdisc());
        bench.attach(&mut datapath, Way::Clsact, hooks).unwrap();
        drop(datapath);
        let mut next = bench.datapath();
        bench.attach(&mut next, Way::Best, hooks).unwrap();
        let exchange = || bench.in_router(|| next.hooks().exchange().unwrap());
        assert!(eventually(bench::PATIENCE, exchange));
        assert_eq!(bench.filters(), "");
        bench.assert_judged();
        drop(next);
        let errors = bench.in_router(|| links::detach(&bench.pins));
        assert!(errors.is_empty(), "{errors:?}");
        assert!(!bench.has_qdisc() && !bench.pins.exists());
        bench.lab.close().unwrap();
    }
}

#[test]
fn detach_takes_everything_off_and_leaves_no_qdisc() {
    for (way, hooks) in WAYS {
        let bench = Bench::new("detach");
        let mut datapath = bench.datapath();
        bench.attach(&mut datapath, way, hooks).unwrap();
        drop(datapath);
        bench.assert_judged();
        let errors = bench.in_router(|| links::detach(&bench.pins));
        assert!(errors.is_empty(), "{errors:?}");
        bench.assert_unjudged();
        assert!(!bench.pins.exists());
        assert_eq!(bench.filters(), "");
        assert!(!bench.has_qdisc());
        // Detaching twice is no error.
        let errors = bench.in_router(|| links::detach(&bench.pins));
        assert!(errors.is_empty(), "{errors:?}");
        bench.lab.close().unwrap();
    }
}

#[test]
fn the_links_of_an_earlier_version_are_taken_over() {
    let bench = Bench::new("version");
    let mut earlier = bench.datapath();
    bench.attach(&mut earlier, Way::Best, &XDP).unwrap();
    drop(earlier);
    // As if another ABI version had made these pins: this one never reads their maps.
    let versions = fs::read_dir(&bench.pins).unwrap();
    let version = versions.last().unwrap().unwrap().path();
    fs::rename(&version, bench.pins.join("v0")).unwrap();
    let mut later = bench.datapath();
    let found = bench.in_router(|| later.hooks().attached().unwrap());
    assert_eq!(found, BTreeSet::from([bench.lan1]));
    let before = bench.programs();
    bench.attach(&mut later, Way::Best, &XDP).unwrap();
    let after = bench.programs();
    assert_eq!(after.len(), XDP.len());
    assert!(after.is_disjoint(&before), "{before:?} {after:?}");
    bench.assert_judged();
    drop(later);
    let errors = bench.in_router(|| links::detach(&bench.pins));
    assert!(errors.is_empty(), "{errors:?}");
    assert!(!bench.pins.exists());
    bench.assert_unjudged();
    bench.lab.close().unwrap();
}

#[test]
fn filters_are_found_without_pins() {
    let bench = Bench::new("lost-pins");
    let mut datapath = bench.datapath();
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    drop(datapath);
    fs::remove_dir_all(&bench.pins).unwrap();
    bench.assert_judged();
    let mut next = bench.datapath();
    assert_eq!(bench.attached(&next), BTreeSet::from(TC));
    bench.attach(&mut next, Way::Best, &[]).unwrap();
    bench.assert_unjudged();
    assert!(!bench.has_qdisc());
    bench.lab.close().unwrap();
}

#[test]
fn what_others_have_attached_stays() {
    let bench = Bench::new("neighbours");
    let pass = bench.foreign("pass", 0);
    let pass = pass.display();
    bench.tc("qdisc add dev lan1 clsact");
    for side in ["ingress", "egress"] {
        bench.tc(&format!(
            "filter add dev lan1 {side} prio 7 protocol all bpf da object-pinned {pass}"
        ));
    }
    let before = bench.filters();
    let mut datapath = bench.datapath();
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    // A filter that answers pass ends the chain, so ours must run before it.
    bench.assert_judged();
    bench.under_traffic(|| {
        let mut next = bench.datapath();
        bench.attach(&mut next, Way::Clsact, &TC).unwrap();
    });
    bench.attach(&mut datapath, Way::Clsact, &[]).unwrap();
    bench.assert_unjudged();
    assert_eq!(bench.filters(), before);

    // A qdisc that other software made stays, even without a filter.
    for side in ["ingress", "egress"] {
        bench.tc(&format!("filter del dev lan1 {side} prio 7"));
    }
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    bench.attach(&mut datapath, Way::Clsact, &[]).unwrap();
    assert!(bench.has_qdisc());

    // A qdisc that Wardline made stays while a foreign filter is on it.
    bench.tc("qdisc del dev lan1 clsact");
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    bench.tc(&format!(
        "filter add dev lan1 egress prio 7 protocol all bpf da object-pinned {pass}"
    ));
    bench.attach(&mut datapath, Way::Clsact, &[]).unwrap();
    assert!(bench.has_qdisc());
    assert!(bench.filters().contains("pref 7") && !bench.filters().contains("wardline"));
    bench.lab.close().unwrap();
}

#[test]
fn a_program_that_passes_everything_takes_no_packet_past_ours() {
    let bench = Bench::new("pass-all");
    if !bench.has_tcx() {
        skip("TCX", "a kernel before 6.6");
        return;
    }
    let pass = foreign::load(Kind::Tc, Does::Answers(0), "pass_all").unwrap();
    let again = foreign::load(Kind::Tc, Does::Answers(0), "pass_all").unwrap();
    let _links = bench.in_router(|| {
        [
            pass.link(bench.lan1, foreign::Hook::TcxIngress).unwrap(),
            again.link(bench.lan1, foreign::Hook::TcxEgress).unwrap(),
        ]
    });
    let mut datapath = bench.datapath();
    for hooks in [&TC[..], &XDP] {
        bench.attach(&mut datapath, Way::Best, hooks).unwrap();
        bench.under_traffic(|| {});
    }
    bench.lab.close().unwrap();
}

#[test]
fn nothing_of_a_deleted_interface_counts_as_attached() {
    for (way, hooks) in WAYS {
        let bench = Bench::new("deleted");
        let router = bench.lab.router();
        let mut datapath = bench.datapath();
        bench.attach(&mut datapath, way, hooks).unwrap();
        router.ip("link del lan1").unwrap();
        assert_eq!(bench.attached(&datapath), BTreeSet::new(), "{way:?}");
        // A new interface gets the deleted one's index.
        let number = bench.lan1;
        router
            .ip(&format!(
                "link add lan1 index {number} type veth peer name eth0 netns {}",
                bench.pump.netns()
            ))
            .unwrap();
        assert_eq!(bench.attached(&datapath), BTreeSet::new(), "{way:?}");
        for (end, name) in [(router, "lan1"), (&bench.pump, "eth0")] {
            end.ip(&format!("link set {name} up")).unwrap();
        }
        for command in [
            "link set eth0 address 02:00:00:00:01:01",
            "address add 10.1.0.11/24 dev eth0",
            "route add default via 10.1.0.1",
        ] {
            bench.pump.ip(command).unwrap();
        }
        router.ip("address add 10.1.0.1/24 dev lan1").unwrap();
        bench.assert_unjudged();
        bench.attach(&mut datapath, way, hooks).unwrap();
        bench.assert_judged();
        // What is left of a deleted interface can be detached.
        router.ip("link del lan1").unwrap();
        bench.attach(&mut datapath, way, &[]).unwrap();
        assert_eq!(
            bench.in_router(|| datapath.hooks().attached().unwrap()),
            BTreeSet::new()
        );
        bench.lab.close().unwrap();
    }
}

#[test]
fn what_somebody_takes_off_is_put_on_again() {
    let bench = Bench::new("taken-off");
    let mut datapath = bench.datapath();
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    bench.tc("qdisc del dev lan1 clsact");
    assert_eq!(bench.attached(&datapath), BTreeSet::new());
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    bench.assert_judged();
    bench.lab.close().unwrap();
}

#[test]
fn a_filter_in_the_way_is_named() {
    let bench = Bench::new("in-the-way");
    let mut datapath = bench.datapath();
    let mut refused =
        |setting: &str, hooks: &[Hook]| match bench.attach(&mut datapath, Way::Clsact, hooks) {
            Err(AttachError::Taken(why)) => why,
            other => panic!("{setting}: {other:?}"),
        };

    bench.tc("qdisc add dev lan1 ingress");
    let why = refused("a qdisc with one side", &[Hook::TcEgress]);
    assert!(why.contains("ingress"), "{why}");
    assert_eq!(bench.filters(), "");
    bench.tc("qdisc del dev lan1 ingress");

    bench.tc("qdisc add dev lan1 clsact");
    bench.tc("filter add dev lan1 egress prio 1 protocol all u32 match u32 0 0 flowid 1:1");
    let why = refused("a filter of another kind", &TC);
    assert!(why.contains("u32"), "{why}");
    bench.tc("filter del dev lan1 egress prio 1");

    let program = bench.foreign("sitting", 0);
    bench.tc(&format!(
        "filter add dev lan1 egress prio 1 handle 0x776c protocol all bpf da object-pinned {}",
        program.display()
    ));
    let why = refused("a filter with our handle", &TC);
    assert!(
        why.contains("sitting") && why.contains("sched_cls"),
        "{why}"
    );
    // Unless every hook could be attached, none of our programs stays.
    assert_eq!(bench.attached(&datapath), BTreeSet::new());
    assert!(!bench.filters().contains("wardline"));
    bench.assert_unjudged();

    // A BPF filter of the same priority with another handle is not in the way.
    bench.tc("filter del dev lan1 egress prio 1");
    bench.tc(&format!(
        "filter add dev lan1 egress prio 1 handle 1 protocol all bpf da object-pinned {}",
        program.display()
    ));
    bench.attach(&mut datapath, Way::Clsact, &TC).unwrap();
    bench.assert_judged();
    bench.lab.close().unwrap();
}

#[test]
fn a_guard_is_whole_or_what_it_was() {
    let bench = Bench::new("half");
    if !bench.has_tcx() {
        skip("TCX", "a kernel before 6.6");
        return;
    }
    let mut datapath = bench.datapath();
    // As many programs as the kernel takes on one hook.
    let full: Vec<(Foreign, Foreign)> = bench.in_router(|| {
        std::iter::from_fn(|| {
            let next = foreign::load(Kind::Tc, Does::Answers(-1), "crowd").unwrap();
            let link = next.link(bench.lan1, foreign::Hook::TcxEgress).ok()?;
            Some((next, link))
        })
        .collect()
    });
    for hooks in [&TC[..], &XDP] {
        let error = bench.attach(&mut datapath, Way::Best, hooks).unwrap_err();
        assert!(error.to_string().contains("as many programs"), "{error}");
        assert_eq!(bench.attached(&datapath), BTreeSet::new());
        bench.assert_unjudged();
    }
    drop(full);

    // When its hooks can't be changed, a port stays guarded as it was.
    bench.attach(&mut datapath, Way::Best, &TC).unwrap();
    bench.tc("qdisc add dev lan1 ingress");
    bench.under_traffic(|| {
        let changed = [Hook::Xdp, Hook::TcEgress, Hook::Tags];
        bench
            .attach(&mut datapath, Way::Clsact, &changed)
            .unwrap_err();
    });
    assert_eq!(bench.attached(&datapath), BTreeSet::from(TC));
    bench.lab.close().unwrap();
}

#[test]
fn the_way_of_a_port_changes_under_traffic() {
    let bench = Bench::new("switch");
    let mut datapath = bench.datapath();
    bench.attach(&mut datapath, Way::Best, &TC).unwrap();
    bench.under_traffic(|| {
        for hooks in [&XDP[..], &TC, &XDP] {
            bench.attach(&mut datapath, Way::Best, hooks).unwrap();
            assert_eq!(bench.attached(&datapath), hooks.iter().copied().collect());
        }
    });
    bench.lab.close().unwrap();
}

/// Broadcasts frames from the pump; a foreign program puts their VLAN tag beside the frame. Returns
/// how many of them the far host, on the same bridge, hears.
fn tagged_frames(bench: &Bench, tag: u16, frames: usize) -> usize {
    let tags = foreign::load(Kind::Tc, Does::Tags(tag), "tags").unwrap();
    let eth0 = index(&bench.pump, "eth0");
    let link = bench.pump.run(|| tags.link(eth0, foreign::Hook::TcxEgress));
    let _link = link.unwrap().unwrap();
    let heard = bench.far.sniff("eth0").unwrap();
    let payload = tag.to_be_bytes();
    let udp = Udp::new(OWN_PORT, ALLOWED, payload.to_vec());
    let frame = Ethernet::new(BROADCAST, PUMP_MAC, Ipv4::new(PUMP, FAR, udp)).bytes();
    for _ in 0..frames {
        bench.pump.send_frame("eth0", &frame).unwrap();
    }
    let ours = |frame: &[u8]| frame.ends_with(&payload) && frame[6..12] == PUMP_MAC;
    let mut count = 0;
    while count < frames && heard.wait_for(QUIET, ours).is_some() {
        count += 1;
    }
    count
}

#[test]
fn a_tag_that_xdp_cannot_see_is_dropped() {
    for way in [Way::Best, Way::Clsact] {
        let bench = Bench::new("tags");
        if !bench.has_tcx() {
            skip("TCX", "a kernel before 6.6");
            return;
        }
        let router = bench.lab.router();
        bench.lab.bridge(router, "br0", &[]).unwrap();
        router.ip("link set uplink master br0").unwrap();
        router.ip("link set lan1 master br0").unwrap();
        let mut datapath = bench.datapath();
        // XDP alone takes the frame for untagged, and the bridge carries it into VLAN 20.
        bench.attach(&mut datapath, way, &[Hook::Xdp]).unwrap();
        assert_eq!(tagged_frames(&bench, 20, 5), 5, "{way:?}");

        bench
            .attach(&mut datapath, way, &[Hook::Tags, Hook::Xdp])
            .unwrap();
        let before = datapath.reader().reasons().unwrap()[&Reason::WrongVlan].packets;
        assert_eq!(tagged_frames(&bench, 21, 5), 0, "{way:?}");
        let after = datapath.reader().reasons().unwrap()[&Reason::WrongVlan].packets;
        assert_eq!(after - before, 5, "{way:?}");
        // A tag with only a priority names no VLAN.
        assert_eq!(tagged_frames(&bench, 5 << 13, 5), 5, "{way:?}");
        bench.lab.close().unwrap();
    }
}
