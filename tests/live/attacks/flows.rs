//! A camera uses flows against the pump that they belong to: it fills the pump's quota, keeps flows
//! that are over, and forges resets.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use wardline_oracle::frames::{ACK, Ethernet, Mac, RST, Tcp, ip};
use wardline_tests::{
    End, Host, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, policy, v4, v6, zone},
};

/// Flows that a device may have.
const QUOTA: u64 = 64;
/// What the pump asks the camera for.
const STREAM: u16 = 554;

/// A pump on the first port, a camera on the second; the pump may ask the camera.
fn document(hook: &str) -> String {
    let attach = format!(", attach: {hook}");
    policy(&[zone(1, "", &attach), zone(2, "", &attach)], "tcp/7")
        + &format!(
            "  - {{name: watch, from: [zone:zone-1], to: [zone:zone-2], services: [tcp/{STREAM}], \
             action: allow}}\n"
        )
}

/// The frame of a segment that a host sends to its next hop.
fn segment(host: &Host, gateway: Mac, from: &str, to: &str, upper: Tcp) -> Vec<u8> {
    let [from, to]: [IpAddr; 2] = [from, to].map(|address| address.parse().unwrap());
    Ethernet::new(gateway, host.mac("eth0").unwrap(), ip(from, to, upper)).bytes()
}

/// A pump and a camera, each on a port of its own: routed, or of one bridge.
struct Pair {
    ward: Ward,
    pump: Host,
    camera: Host,
    on_bridge: bool,
}

impl Pair {
    fn new(name: &str, on_bridge: bool) -> Self {
        let ward = Ward::new(name);
        let [pump, camera] = if on_bridge {
            let addresses = ["10.20.0.1/16", "fd20::1/32"];
            let router = ward.lab.router();
            ward.lab.bridge(router, "br0", &addresses).unwrap();
            [1, 2].map(|net| ward.beside(net, "br0"))
        } else {
            [1, 2].map(|net| ward.device(net))
        };
        ward.lab.settle().unwrap();
        Self {
            ward,
            pump,
            camera,
            on_bridge,
        }
    }

    /// The MAC by which the camera reaches the pump.
    fn next_hop(&self) -> Mac {
        if self.on_bridge {
            self.pump.mac("eth0").unwrap()
        } else {
            self.ward.lab.router().mac("lan2").unwrap()
        }
    }

    /// Segments of connections that the pump has never opened, as the camera would answer them, in both
    /// families.
    fn answers(&self) -> Vec<Vec<u8>> {
        let next = self.next_hop();
        let ports = 20_000..20_000 + 2 * QUOTA as u16;
        let ends = [[v4(2), v4(1)], [v6(2), v6(1)]];
        let each = |port| {
            ends.each_ref().map(|[from, to]| {
                segment(&self.camera, next, from, to, Tcp::new(STREAM, port, ACK))
            })
        };
        ports.flat_map(each).collect()
    }

    /// Makes the camera's port anew, as a driver or a container's network does.
    fn remake(&self) {
        let ward = &self.ward;
        let host = End::new(&self.camera, "eth0").mac(&mac(2));
        if self.on_bridge {
            let host = host
                .address(&format!("{}/16", v4(2)))
                .address(&format!("{}/32", v6(2)));
            let port = End::new(ward.lab.router(), "lan2").master("br0");
            ward.lab.wire(&host, &port).unwrap();
        } else {
            let host = host
                .address(&format!("{}/24", v4(2)))
                .address(&format!("{}/64", v6(2)))
                .gateway("10.20.2.1")
                .gateway("fd20:0:0:2::1");
            ward.lab.wire(&host, &ward.port(2)).unwrap();
        }
        ward.lab.settle().unwrap();
    }
}

/// Whether the pump opens as many connections as it may have, from each family.
fn opens_all(pump: &Host, most: u64) -> bool {
    let targets = [v4(2), v6(2)];
    let sessions: Vec<_> = (0..most as usize)
        .filter_map(|number| pump.session(&targets[number % 2], STREAM).ok())
        .collect();
    sessions.len() as u64 == most
}

#[test]
fn a_camera_can_not_use_up_the_flows_of_a_pump() {
    spares_the_quota("others-quota", false);
}

#[test]
fn a_camera_on_a_bridge_can_not_use_up_the_flows_of_a_pump() {
    spares_the_quota("quota-bridged", true);
}

fn spares_the_quota(name: &str, on_bridge: bool) {
    for hook in ["xdp", "tc"] {
        let pair = Pair::new(name, on_bridge);
        let Pair {
            ward, pump, camera, ..
        } = &pair;
        let _stream = camera.tcp_serve(STREAM).unwrap();
        let more = format!("[timeouts]\nadoption = 600\n[limits]\nflows_per_device = {QUOTA}\n");
        let mut guard = Guard::start(&ward.lab, &more);
        let mut running = [v4(2), v6(2)].map(|to| pump.session(&to, STREAM).unwrap());
        guard.apply(&document(hook));
        guard.wait_until_guarded("lan2");
        // What ran before goes on, and the camera pays for what it claims to have run.
        for session in &mut running {
            assert!(session.echo(b"still there"), "{hook}");
        }
        let frames = pair.answers();
        camera.flood("eth0", &frames).unwrap();
        let all = frames.len() as u64;
        let refused = || guard.packets("device_quota") >= all - QUOTA / 2;
        assert!(eventually(PATIENCE, refused), "{hook} {:?}", guard.drops());
        guard.told(&[("reason", "device_quota"), ("device", "device-2")]);
        let own = running.len() as u64;
        assert!(opens_all(pump, QUOTA - own), "{hook} {:?}", guard.drops());

        // A port that is made anew adopts nothing, whether the daemon sees it or starts after it.
        for restart in [false, true] {
            if restart {
                guard.daemon.kill9().unwrap();
            }
            ward.lab.router().ip("link del lan2").unwrap();
            if !restart {
                guard.wait_until_unguarded("lan2");
            }
            pair.remake();
            if restart {
                guard.daemon.restart().unwrap();
            }
            guard.wait_until_guarded("lan2");
            let (before, quota) = (guard.packets("mid_flow"), guard.packets("device_quota"));
            camera.flood("eth0", &pair.answers()).unwrap();
            // But for those that it has adopted already.
            let refused = || guard.packets("mid_flow") >= before + all - QUOTA / 2;
            assert!(eventually(PATIENCE, refused), "{hook} {:?}", guard.drops());
            assert_eq!(guard.packets("device_quota"), quota, "{hook}");
            for session in &mut running {
                assert!(session.echo(b"and still"), "{hook}");
            }
        }
        drop(guard);
        pair.ward.lab.close().unwrap();
    }
}

#[test]
fn a_flow_that_is_over_ends_on_time_whatever_the_camera_sends() {
    ends_on_time("over", false);
}

#[test]
fn a_flow_that_is_over_ends_on_time_on_a_bridge_too() {
    ends_on_time("over-bridged", true);
}

fn ends_on_time(name: &str, on_bridge: bool) {
    const CLOSING: Duration = Duration::from_secs(3);
    let pair = Pair::new(name, on_bridge);
    let Pair {
        ward, pump, camera, ..
    } = &pair;
    let _stream = camera.tcp_serve(STREAM).unwrap();
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "[timeouts]\nadoption = 0\ntcp_closing = 3\n");
        guard.apply(&document(hook));
        let next = pair.next_hop();
        for [from, to] in [[v4(2), v4(1)], [v6(2), v6(1)]] {
            let mut session = pump.session(&from, STREAM).unwrap();
            assert!(session.echo(b"a picture"));
            let port = session.local().unwrap().port();
            drop(session);
            let closing = || {
                let flows = guard.flows(&to, &from);
                flows.iter().any(|flow| flow["state"] == "closing")
            };
            assert!(eventually(PATIENCE, closing), "{hook}");
            let (began, ack) = (Instant::now(), Tcp::new(STREAM, port, ACK));
            let again = segment(camera, next, &from, &to, ack);
            let over = eventually(PATIENCE, || {
                camera.send_frame("eth0", &again).unwrap();
                guard.flows(&to, &from).is_empty()
            });
            let took = began.elapsed();
            assert!(over && took < CLOSING * 2, "{hook} {took:?}");
            let before = guard.packets("mid_flow");
            camera.send_frame("eth0", &again).unwrap();
            let refused = || guard.packets("mid_flow") > before;
            assert!(eventually(PATIENCE, refused), "{hook}");
            assert!(pump.session(&from, STREAM).unwrap().echo(b"another"));
        }
    }
}

#[test]
fn a_reset_that_somebody_else_has_forged_cuts_nothing() {
    let ward = Ward::new("forged-reset");
    let pump = ward.device(1);
    ward.lab.settle().unwrap();
    let _server = ward.far.tcp_serve(7).unwrap();
    let gateway = ward.lab.router().mac("uplink").unwrap();
    for hook in ["xdp", "tc"] {
        let guard = Guard::start(&ward.lab, "[timeouts]\ntcp_closing = 2\n");
        guard.apply(&policy(
            &[zone(1, "", &format!(", attach: {hook}"))],
            "tcp/7",
        ));
        for (far, to) in FAR.into_iter().zip([v4(1), v6(1)]) {
            let session = pump.session(far, 7).unwrap();
            let port = session.local().unwrap().port();
            let transfer = session.transfer(Duration::from_millis(20)).unwrap();
            // The pump's stack does not believe it either: it does not fit the window.
            let reset = segment(&ward.far, gateway, far, &to, Tcp::new(7, port, RST));
            let until = Instant::now() + Duration::from_secs(8);
            let mut forged = 0;
            assert!(eventually(PATIENCE, || transfer.echoed() > 1 << 16));
            while Instant::now() < until {
                ward.far.send_frame("eth0", &reset).unwrap();
                forged += 1;
                let mark = transfer.echoed();
                let on = eventually(PATIENCE, || transfer.echoed() > mark + (1 << 17));
                assert!(on, "{hook} after {forged} resets: {:?}", guard.drops());
            }
            transfer.finish(PATIENCE).unwrap();
            assert!(guard.drops().is_empty(), "{hook} {:?}", guard.drops());
        }
    }
}
