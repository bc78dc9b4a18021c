//! Which open connections go on, and which are cut, when a port is first guarded or policy changes?

use std::{fs, thread, time::Duration};

use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;
use wardline_oracle::frames::{Ethernet, Ipv4, icmp};
use wardline_tests::{
    Session, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, v4, v6, zone},
};

/// Pause between chunks of a transfer, so that it does not take all processor time.
const PAUSE: Duration = Duration::from_millis(2);

#[test]
fn what_runs_goes_on_when_a_rule_allows_it() {
    let ward = Ward::new("adoption");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    let servers = [7, 9].map(|port| ward.far.tcp_serve(port).unwrap());
    let inner = device.tcp_serve(8).unwrap();
    let open = |session: Session| session.transfer(PAUSE).unwrap();
    // Sessions of both families, opened by either end; and two that no rule allows.
    let kept: Vec<_> = [
        device.session(FAR[0], 7),
        device.session(FAR[1], 7),
        ward.far.session(&v4(1), 8),
        ward.far.session(&v6(1), 8),
    ]
    .map(|session| open(session.unwrap()))
    .into();
    let cut: Vec<_> = FAR.map(|far| open(device.session(far, 9).unwrap())).into();
    let all_run = || kept.iter().chain(&cut).all(|it| it.echoed() > 1 << 16);
    assert!(eventually(PATIENCE, all_run));

    let mut document = policy(&[zone(1, "", "")], "tcp/7, icmp/8");
    document.push_str(
        "  - {name: in, from: [\"cidr:198.51.100.0/24\", \"cidr:2001:db8:100::/64\"], \
         to: [device:device-1], services: [tcp/8], action: allow}\n",
    );
    guard.apply(&document);
    guard.wait_until_guarded("lan1");
    // An echo reply whose request was sent before the port was guarded: no flow is known for it.
    let answer = Ipv4::new(
        FAR[0].parse().unwrap(),
        v4(1).parse().unwrap(),
        icmp::reply(77, 1),
    );
    let gateway = ward.lab.router().mac("uplink").unwrap();
    let answer = Ethernet::new(gateway, ward.far.mac("eth0").unwrap(), answer).bytes();
    let came = eventually(PATIENCE, || {
        // A new sniffer each time: the transfers' frames soon overrun one that is not read.
        let sniffer = device.sniff("eth0").unwrap();
        ward.far.send_frame("eth0", &answer).unwrap();
        let is_answer = |frame: &[u8]| frame[23] == 1 && frame[34..].starts_with(&answer[34..]);
        sniffer.wait_for(TIMEOUT, is_answer).is_some()
    });
    assert!(came, "{:?}", guard.drops());
    let pings = guard.flows(&v4(1), FAR[0]);
    // Nothing shows yet that the device has asked.
    let adopted = |flow: &&Value| flow["protocol"] == "icmp" && flow["state"] == "unanswered";
    assert!(pings.iter().find(adopted).is_some(), "{pings:#?}");

    let marks: Vec<u64> = kept.iter().map(|it| it.echoed()).collect();
    let stopped: Vec<u64> = cut.iter().map(|it| it.echoed()).collect();
    let on = || {
        kept.iter()
            .zip(&marks)
            .all(|(it, mark)| it.echoed() > mark + (4 << 20))
    };
    assert!(eventually(Duration::from_secs(30), on));
    let now: Vec<u64> = cut.iter().map(|it| it.echoed()).collect();
    assert_eq!(now, stopped);
    for transfer in kept {
        transfer.finish(PATIENCE).unwrap();
    }
    let drops = guard.drops();
    assert_eq!(drops.keys().collect::<Vec<_>>(), ["mid_flow"], "{drops:?}");
    guard.told(&[("device", "device-1"), ("reason", "mid_flow")]);
    drop((servers, inner));
}

#[test]
fn what_shows_itself_too_late_is_cut() {
    let ward = Ward::new("late");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let mut guard = Guard::start(&ward.lab, "[timeouts]\nadoption = 2\n");
    let _server = ward.far.tcp_serve(7).unwrap();
    let mut idle: Vec<_> = (0..60)
        .map(|_| device.session(FAR[0], 7).unwrap())
        .collect();
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    guard.wait_until_guarded("lan1");
    // The idle sessions send one after the other, the first at once, until one is too late.
    let mut adopted = Vec::new();
    let too_late = eventually(PATIENCE, || {
        let mut session = idle.pop().unwrap();
        let goes_on = session.echo(b"still there");
        if goes_on {
            adopted.push(session);
        }
        thread::sleep(Duration::from_millis(100));
        !goes_on
    });
    assert!(too_late && !adopted.is_empty(), "{} adopted", adopted.len());
    assert!(guard.packets("mid_flow") > 0);

    // A restarted daemon does not begin another adoption period.
    for kill in [true, false] {
        if kill {
            guard.daemon.kill9().unwrap();
        }
        guard.daemon.restart().unwrap();
        assert!(!idle.pop().unwrap().echo(b"and now"));
        for session in &mut adopted {
            assert!(session.echo(b"adopted"));
        }
    }
    assert_eq!(guard.drops().keys().collect::<Vec<_>>(), ["mid_flow"]);
}

#[test]
fn a_daemon_that_can_not_read_the_tables_of_another_adopts_what_runs() {
    let ward = Ward::new("upgrade-adopts");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    let _server = ward.far.tcp_serve(7).unwrap();
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let mut session = device.session(FAR[0], 7).unwrap();
    assert!(session.echo(b"before"));
    guard.daemon.terminate().unwrap();
    // As if a version had made these tables that does not say what form they have.
    let pins = guard.daemon.pins().to_owned();
    let versions = fs::read_dir(&pins).unwrap();
    let version = versions.last().unwrap().unwrap().path();
    fs::rename(&version, pins.join("v0")).unwrap();
    fs::remove_file(pins.join("v0/maps/LAYOUT")).unwrap();
    guard.daemon.restart().unwrap();
    guard.wait_until_guarded("lan1");
    assert!(session.echo(b"after"), "{:?}", guard.drops());
    assert!(!pins.join("v0").exists());
}

#[test]
fn nothing_is_adopted_where_that_is_off() {
    let ward = Ward::new("no-adoption");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "[timeouts]\nadoption = 0\n");
    let _server = ward.far.tcp_serve(7).unwrap();
    let mut session = device.session(FAR[0], 7).unwrap();
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    guard.wait_until_guarded("lan1");
    assert!(!session.echo(b"still there"));
    assert!(device.session(FAR[0], 7).unwrap().echo(b"a new one"));
    assert_eq!(guard.drops().keys().collect::<Vec<_>>(), ["mid_flow"]);
}

/// A policy of two devices with a rule each; `device` and `rule` are the lines of the first one,
/// which the test changes.
fn changes(device: &str, rule: &str) -> String {
    let [one, two] = [zone(1, "", ""), zone(2, "", "")];
    format!(
        "version: 1\nzones:\n{}{}ports:\n{}{}devices:\n{device}{}rules:\n{rule}  \
         - {{name: second, from: [device:device-2], to: [\"cidr:198.51.100.0/24\"], \
         services: [tcp/7], action: allow}}\n",
        one[0], two[0], one[1], two[1], two[2]
    )
}

#[test]
fn a_change_cuts_what_it_is_about_and_nothing_else() {
    let ward = Ward::new("cuts");
    let devices = [ward.device(1), ward.device(2)];
    ward.lab.settle().unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    let _server = ward.far.tcp_serve(7).unwrap();
    let listed = zone(1, "", "")[2].clone();
    let moved = listed.replace("addresses: [10.20.1.11", "addresses: [10.20.1.12");
    let rule = |more: &str| {
        format!(
            "  - {{name: first, from: [zone:zone-1], to: [\"cidr:198.51.100.0/24\"], \
             services: [tcp/7], action: allow{more}}}\n"
        )
    };
    guard.apply(&changes(&listed, &rule("")));
    let start = |number: usize| {
        let session = devices[number].session(FAR[0], 7).unwrap();
        session.transfer(PAUSE).unwrap()
    };
    let other = start(1);
    let mut changed = 0;
    for (document, reason) in [
        (changes(&listed, ""), "no_rule"),
        (changes("", ""), "unknown_device"),
        (changes(&moved, &rule("")), "spoofed_source"),
    ] {
        guard.apply(&changes(&listed, &rule("")));
        let transfer = start(0);
        assert!(eventually(PATIENCE, || transfer.echoed() > 1 << 18));
        guard.apply(&document);
        changed += 1;
        // Packets that passed the hook before the change are still under way or in socket buffers.
        let drained = || {
            let before = transfer.echoed();
            thread::sleep(Duration::from_secs(1));
            transfer.echoed() == before
        };
        assert!(eventually(PATIENCE, drained), "{reason}");
        let (stopped, mark) = (transfer.echoed(), other.echoed());
        let on = || other.echoed() > mark + (4 << 20);
        assert!(eventually(Duration::from_secs(30), on), "{reason}");
        assert_eq!(transfer.echoed(), stopped, "{reason}");
        assert!(guard.packets(reason) > 0, "{:?}", guard.drops());
    }

    // A rule expires on time while no daemon runs.
    let expiry = Timestamp::now() + 3.seconds();
    guard.apply(&changes(
        &listed,
        &rule(&format!(", expires: \"{expiry}\"")),
    ));
    let transfer = start(0);
    guard.daemon.kill9().unwrap();
    let now = || Timestamp::now().as_millisecond();
    let mut last = (transfer.echoed(), now());
    let over = eventually(Duration::from_secs(20), || {
        let echoed = transfer.echoed();
        if echoed != last.0 {
            last = (echoed, now());
        }
        now() > expiry.as_millisecond() && now() > last.1 + 1500
    });
    assert!(over);
    let late = last.1 - expiry.as_millisecond();
    assert!(
        (-1000..=1000).contains(&late),
        "ended {late} ms after its time"
    );
    guard.daemon.restart().unwrap();
    assert!(guard.packets("expired") > 0, "{:?}", guard.drops());

    // None of this affected the other device's flow.
    let flows = guard.flows(&v4(2), FAR[0]);
    assert_eq!(flows.len(), 1, "{flows:#?}");
    assert_eq!(flows[0]["state"], "established");
    let bytes = other.finish(PATIENCE).unwrap();
    println!("{bytes} bytes each way during {changed} changes and an expiry ({late} ms late)");
    let events = guard.ctl.events().unwrap();
    assert!(
        events.iter().all(|event| event["device"] != "device-2"),
        "{events:#?}"
    );
    assert!(
        events.iter().all(|event| event["source"] != v4(2)),
        "{events:#?}"
    );
    assert!(
        events.iter().all(|event| event["destination"] != v4(2)),
        "{events:#?}"
    );
}
