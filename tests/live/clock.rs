//! The wall clock is set while rules, grants and a confirm run, as NTP does it after boot.
//!
//! All of a machine has one wall clock, so this is for a machine of the test's own: the guests of
//! `cargo xtask kernels`.

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use wardline_tests::{
    Ctl, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, skip, zone},
};

const HOUR: i64 = 3600;

/// The machine's wall clock, which is right again when this is dropped.
struct WallClock {
    was: Timestamp,
    since: Instant,
}

impl WallClock {
    fn new() -> Self {
        Self {
            was: Timestamp::now(),
            since: Instant::now(),
        }
    }

    /// Sets the clock to so many seconds after the right time.
    fn set(&self, ahead: i64) {
        let passed = self.since.elapsed().as_secs() as i64;
        let now = self.was.as_second() + passed + ahead;
        let done = Command::new("date")
            .args(["-s", &format!("@{now}")])
            .output();
        let done = done.unwrap();
        assert!(done.status.success(), "{done:?}");
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// When the grant ends, in seconds from what the clock says now.
fn grant_ends_in(ctl: &Ctl) -> Option<i64> {
    let status = ctl.json(&["status"]).unwrap();
    let ends: Timestamp = status["grants"][0]["expires"].as_str()?.parse().unwrap();
    Some(ends.duration_since(Timestamp::now()).as_secs())
}

#[test]
fn a_clock_that_is_set_ends_rules_and_neither_grants_nor_confirms() {
    if env::var_os("WARDLINE_MAY_SET_CLOCK").is_none() {
        skip(
            "wall clock",
            "only a machine of the test's own may have its clock set; cargo xtask kernels has one",
        );
        return;
    }
    let clock = WallClock::new();
    let ward = Ward::new("clock");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let _served = [7, 9].map(|port| ward.far.tcp_serve(port).unwrap());
    let guard = Guard::start(&ward.lab, "");
    let ctl = &guard.ctl;
    let opens = |port| device.tcp_connect(FAR[0], port, TIMEOUT) == Outcome::Connected;

    let ends = clock.was + SignedDuration::from_secs(HOUR);
    let ending = format!(
        "  - {{name: ending, from: [any], to: ['cidr:198.51.100.0/24'], services: [tcp/7], \
         action: allow, expires: {ends}}}\n"
    );
    let ending = policy(&[zone(1, "", "")], "tcp/1") + &ending;
    guard.apply(&ending);
    let grant = "grant --from zone:zone-1 --to cidr:198.51.100.0/24 --service tcp/9 --for 1h --reason visit";
    let grant: Vec<&str> = grant.split(' ').collect();
    ctl.run(&grant).unwrap().ok().unwrap();
    assert!(opens(7) && opens(9));

    for (ahead, is_open) in [(2 * HOUR, false), (-2 * HOUR, true), (0, true)] {
        clock.set(ahead);
        assert!(
            eventually(PATIENCE, || opens(7) == is_open),
            "{ahead} s ahead: the rule ends by the clock"
        );
        let mut left = None;
        let lasts = eventually(PATIENCE, || {
            left = grant_ends_in(ctl);
            left.is_some_and(|left| (HOUR - 600..=HOUR + 1).contains(&left))
        });
        assert!(lasts, "{ahead} s ahead: the grant ends in {left:?} s");
        assert!(opens(9), "{ahead} s ahead: the grant goes on");
    }

    // A change waits as long as was asked for, whatever the clock does meanwhile.
    let apply = |within: &str| {
        let file = ward.lab.dir().join("policy.yaml");
        std::fs::write(&file, &ending).unwrap();
        let file = file.to_str().unwrap();
        let arguments = ["apply", "-f", file, "--confirm-within", within];
        ctl.run(&arguments).unwrap().ok().unwrap();
    };
    let waits = || !ctl.json(&["status"]).unwrap()["pending"].is_null();
    apply("600s");
    clock.set(24 * HOUR);
    assert!(!eventually(Duration::from_secs(3), || !waits()));
    clock.set(0);
    ctl.run(&["confirm"]).unwrap().ok().unwrap();
    apply("5s");
    clock.set(-24 * HOUR);
    assert!(
        eventually(PATIENCE, || !waits()),
        "it is taken back in time"
    );

    let doubt = || ctl.json(&["status"]).unwrap()["clock_doubt"].clone();
    let told = eventually(PATIENCE, || {
        doubt().as_str().unwrap().contains("was made at")
    });
    assert!(told, "{}", doubt());
    clock.set(-40 * 365 * 24 * HOUR);
    let told = eventually(PATIENCE, || {
        doubt()
            .as_str()
            .unwrap()
            .contains("this version was made after")
    });
    assert!(told, "{}", doubt());
    assert!(opens(7));
    drop(guard);
    ward.lab.close().unwrap();
}
