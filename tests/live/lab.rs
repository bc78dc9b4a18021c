//! The lab itself: without a daemon, all that is sent arrives, and nothing is left behind.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use wardline_tests::clinic::{self, Clinic};
use wardline_tests::{End, Host, Lab, Outcome, TIMEOUT, eventually};

#[test]
fn carries_tcp_udp_and_ping_of_both_families() {
    let (lab, one, two) = two_hosts();
    let tcp = two.tcp_serve(443).unwrap();
    let udp = two.udp_serve(53).unwrap();
    for address in ["10.20.2.11", "fd20:0:0:2::11"] {
        assert_eq!(one.tcp_connect(address, 443, TIMEOUT), Outcome::Connected);
        assert_eq!(one.udp_exchange(address, 53, TIMEOUT), Outcome::Connected);
        assert!(one.ping(address));
    }
    assert!(eventually(TIMEOUT, || tcp.served() == 2));
    assert_eq!(udp.served(), 2);
    drop((tcp, udp));
    lab.close().unwrap();
}

#[test]
fn tells_refused_dropped_and_unreachable_apart() {
    let (lab, one, two) = two_hosts();
    for address in ["10.20.2.11", "fd20:0:0:2::11"] {
        assert_eq!(one.tcp_connect(address, 81, TIMEOUT), Outcome::Refused);
        assert_eq!(one.udp_exchange(address, 81, TIMEOUT), Outcome::Refused);
    }
    let _server = two.tcp_serve(443).unwrap();
    two.ip("route add blackhole 10.20.1.0/24").unwrap();
    assert_eq!(
        one.tcp_connect("10.20.2.11", 443, TIMEOUT),
        Outcome::Dropped
    );
    assert!(!one.ping("10.20.2.11"));
    two.ip("route delete blackhole 10.20.1.0/24").unwrap();

    lab.router()
        .ip("route add unreachable 192.0.2.0/24")
        .unwrap();
    assert_eq!(
        one.tcp_connect("192.0.2.1", 443, TIMEOUT),
        Outcome::Unreachable
    );
}

#[test]
fn a_session_sees_its_cut_and_its_return() {
    let (_lab, one, two) = two_hosts();
    let _server = two.tcp_serve(554).unwrap();
    let mut session = one.session_from(40_000, "10.20.2.11", 554).unwrap();
    assert_eq!(session.local().unwrap().port(), 40_000);
    assert!(session.echo(b"first"));
    two.ip("link set eth0 down").unwrap();
    assert!(!session.echo(b"lost"));
    two.ip("link set eth0 up").unwrap();
    two.ip("route add default via 10.20.2.1").unwrap();
    assert!(session.echo_within(b"again", Duration::from_secs(10)));
}

#[test]
fn frames_arrive_as_they_were_sent() {
    let lab = Lab::new("frames").unwrap();
    let host = lab.host("camera-1").unwrap();
    lab.wire(
        &End::new(&host, "eth0")
            .mac("02:00:00:00:02:01")
            .tx_vlan(false)
            .tx_checksum(false),
        &End::new(lab.router(), "cam1").mtu(1400),
    )
    .unwrap();
    lab.settle().unwrap();
    assert_eq!(host.mac("eth0").unwrap(), [2, 0, 0, 0, 2, 1]);
    let sniffer = lab.router().sniff("cam1").unwrap();
    let untagged = frame(&[0x88, 0xb5]);
    let tagged = frame(&[0x81, 0x00, 0x00, 0x14, 0x88, 0xb5]);
    // A receiving kernel takes the tag out of the frame; the sniffer puts it back.
    for sent in [&untagged, &tagged] {
        host.send_frame("eth0", sent).unwrap();
        assert!(
            sniffer
                .wait_for(TIMEOUT, |frame| frame == sent.as_slice())
                .is_some()
        );
    }
    assert!(
        lab.router()
            .ip("link show cam1")
            .unwrap()
            .contains("mtu 1400")
    );
}

#[test]
fn two_labs_live_side_by_side() {
    let (one, ..) = two_hosts();
    let (two, ..) = two_hosts();
    assert_ne!(one.id(), two.id());
    drop(one);
    two.settle().unwrap();
}

#[test]
fn nothing_stays_after_a_panic() {
    let mut left = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let (lab, one, _) = two_hosts();
        let mut sleep = std::process::Command::new("sleep");
        let child = one.spawn(sleep.arg("60")).unwrap();
        left = Some((one.netns_path(), lab.dir().to_owned(), child));
        panic!("as a failing test does");
    }));
    assert!(panicked.is_err());
    let (netns, dir, mut child) = left.unwrap();
    assert!(!netns.exists(), "{} is still there", netns.display());
    assert!(!dir.exists(), "{} is still there", dir.display());
    assert!(
        !child.wait().unwrap().success(),
        "the process in the namespace was not ended"
    );
}

#[test]
fn what_a_dead_process_left_goes_with_the_next_lab() {
    let mut other = std::process::Command::new("true").spawn().unwrap();
    let pid = other.id();
    other.wait().unwrap();
    let dir = format!("/run/wardline-lab/{pid}-1-0");
    let netns = format!("wl-{pid}-1-0-router");
    fs::create_dir_all(&dir).unwrap();
    let made = std::process::Command::new("ip")
        .args(["netns", "add", &netns])
        .status()
        .unwrap();
    assert!(made.success());
    let _lab = Lab::new("next").unwrap();
    // Another test's lab may have found them first and still be removing them.
    let gone = || !Path::new(&dir).exists() && !Path::new("/run/netns").join(&netns).exists();
    assert!(eventually(Duration::from_secs(5), gone));
}

#[test]
fn in_the_clinic_everything_reaches_everything() {
    let clinic = Clinic::build(|_| ()).unwrap();
    assert_eq!(
        clinic.pump1.tcp_connect("10.20.9.10", clinic::HL7, TIMEOUT),
        Outcome::Connected
    );
    assert_eq!(
        clinic
            .nurse
            .tcp_connect("fd20:0:0:9::10", clinic::HTTPS, TIMEOUT),
        Outcome::Connected
    );
    assert_eq!(
        clinic
            .camera1
            .tcp_connect("10.20.2.22", clinic::RTSP, TIMEOUT),
        Outcome::Connected
    );
    assert_eq!(
        clinic
            .camera2
            .udp_exchange(clinic::ROUTER, clinic::NTP, TIMEOUT),
        Outcome::Connected
    );
    assert!(clinic.internet.ping("10.20.1.11"));
    assert!(clinic.internet.ping("fd20:0:0:1::12"));
    clinic.close().unwrap();
}

fn two_hosts() -> (Lab, Host, Host) {
    let lab = Lab::new("two-hosts").unwrap();
    let hosts = [1, 2].map(|net| {
        let host = lab.host(&format!("host-{net}")).unwrap();
        lab.wire(
            &End::new(&host, "eth0")
                .address(&format!("10.20.{net}.11/24"))
                .address(&format!("fd20:0:0:{net}::11/64"))
                .gateway(&format!("10.20.{net}.1"))
                .gateway(&format!("fd20:0:0:{net}::1")),
            &End::new(lab.router(), &format!("lan{net}"))
                .address(&format!("10.20.{net}.1/24"))
                .address(&format!("fd20:0:0:{net}::1/64")),
        )
        .unwrap();
        host
    });
    lab.settle().unwrap();
    let [one, two] = hosts;
    (lab, one, two)
}

/// A frame of a private protocol: addresses, the given middle, and a payload.
fn frame(middle: &[u8]) -> Vec<u8> {
    let addresses = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 2, 1];
    [&addresses, middle, &[0x57; 60]].concat()
}
