//! Two hundred crashes: whenever the daemon dies within a change, the router enforces the old
//! revision or the new one, whole, and no change that was answered is lost.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use wardline_tests::{
    Host, Outcome, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, zone},
};

/// Points in a change at which the daemon can be told to die.
const POINTS: [&str; 6] = [
    "before-store",
    "after-store",
    "half-filled",
    "filled",
    "judges",
    "in-force",
];
/// Crashes at each point, in turns.
const ROUNDS: usize = 20;
/// Kills at any moment, each a little later after the change was sent.
const ANYTIME: u32 = 80;

/// The services of the two policies that take turns.
const SERVICES: [u16; 2] = [7, 8];

/// A connection that policy allows opens within this time.
const SOON: Duration = Duration::from_millis(60);

struct Crashes {
    guard: Guard,
    devices: [Host; 2],
    documents: [String; 2],
    /// Revisions that a client got an answer for.
    answered: Vec<u64>,
    /// What is in force, as an index of the policies.
    force: usize,
}

impl Crashes {
    /// Makes the next process die at a point.
    fn arm(&mut self, point: Option<(usize, &str)>) {
        let point = point.map(|(_, point)| point);
        self.guard.daemon.set_environment("WARDLINE_FAULT", point);
    }

    /// Changes to the other policy while the daemon dies, and checks what is left of both.
    fn crash(&mut self, what: &str, kill: impl FnOnce(&mut Guard)) {
        let next = 1 - self.force;
        let file = self.guard.daemon.config().with_file_name("next.yaml");
        std::fs::write(&file, &self.documents[next]).unwrap();
        let server = self.guard.ctl.server().to_owned();
        let mut client = Command::new(self.guard.ctl.binary())
            .args(["--server", &server, "-o", "json", "apply", "-f"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        kill(&mut self.guard);
        assert!(client.wait().is_ok());
        let answer = client.wait_with_output().unwrap();
        if answer.status.success() {
            let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
            self.answered.push(answer["revision"].as_u64().unwrap());
        }
        // No daemon runs: the kernel judges alone.
        self.force = self.judged(what);
        self.guard.daemon.restart().unwrap();
        let stored = self.guard.ctl.json(&["get"]).unwrap();
        let port = stored["rules"][0]["services"][0].as_str().unwrap();
        let stored = SERVICES.iter().position(|it| port == format!("tcp/{it}"));
        // The stored policy judges from now on: the one that did, or the one that was not yet in
        // force.
        self.force = self.judged(what);
        assert_eq!(Some(self.force), stored, "{what}");
        if answer.status.success() {
            assert_eq!(self.force, next, "{what}: an answered change is lost");
        }
        let newest = self.guard.ctl.json(&["history", "--limit", "1"]).unwrap();
        let newest = newest["revisions"][0]["revision"].as_u64().unwrap();
        assert!(self.answered.iter().all(|it| *it <= newest), "{what}");
    }

    /// Which policy judges; it must be the same for both devices.
    fn judged(&self, what: &str) -> usize {
        let [one, two] = &self.devices;
        let opens = |host: &Host, index: usize| {
            host.tcp_connect(FAR[0], SERVICES[index], SOON) == Outcome::Connected
        };
        let mut found = None;
        let judges = eventually(PATIENCE, || {
            found = [0, 1].into_iter().find(|index| opens(one, *index));
            found.is_some()
        });
        assert!(judges, "{what}: neither policy judges");
        let found = found.unwrap();
        assert!(
            eventually(PATIENCE, || opens(two, found)),
            "{what}: a mixture"
        );
        assert!(
            !opens(one, 1 - found) && !opens(two, 1 - found),
            "{what}: a mixture"
        );
        found
    }
}

#[test]
fn no_crash_leaves_a_mixture_or_loses_a_change() {
    let ward = Ward::new("crash");
    let devices = [ward.device(1), ward.device(2)];
    ward.lab.settle().unwrap();
    let _far = SERVICES.map(|port| ward.far.tcp_serve(port).unwrap());
    let guard = Guard::start(&ward.lab, "");
    let zones = [zone(1, "", ""), zone(2, "", "")];
    let documents = SERVICES.map(|port| policy(&zones, &format!("tcp/{port}")));
    guard.apply(&documents[1]);
    let started = Instant::now();
    guard.apply(&documents[0]);
    let whole = started.elapsed();
    let mut crashes = Crashes {
        guard,
        devices,
        documents,
        answered: Vec::new(),
        force: 0,
    };
    let mut points = (0..ROUNDS).flat_map(|round| POINTS.map(|point| (round, point)));
    let mut next = points.next();
    crashes.arm(next);
    crashes.guard.daemon.restart().unwrap();
    while let Some((round, point)) = next {
        // The process that comes after this crash dies at the next point.
        next = points.next();
        crashes.arm(next);
        let what = format!("{point}, round {round}");
        crashes.crash(&what, |guard| guard.daemon.await_death().unwrap());
    }
    for number in 0..ANYTIME {
        let what = format!("kill {number}");
        crashes.crash(&what, |guard| {
            // Not a wait for anything: kills fall from before the change arrives until after its
            // answer, in proportion to how long a change takes on this machine.
            thread::sleep(whole * number * 3 / ANYTIME / 2);
            guard.daemon.kill9().unwrap();
        });
    }
    let answered = crashes.answered.len();
    assert!(
        answered > 0,
        "no change was answered: the kills come too early"
    );
    let history = crashes
        .guard
        .ctl
        .json(&["history", "--limit", "1000"])
        .unwrap();
    let history = history["revisions"].as_array().unwrap();
    for revision in &crashes.answered {
        assert!(
            history.iter().any(|it| it["revision"] == *revision),
            "{revision}"
        );
    }
}
