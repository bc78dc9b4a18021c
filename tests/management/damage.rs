//! Reboots with damage: whatever is broken in the state directory, nothing that was denied passes,
//! and what was allowed does as long as anything has the policy.

use std::fs;

use serde_json::Value;
use wardline_tests::{
    Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, policy, v4, zone},
};

/// A service that the policy allows, and one that it does not.
const ALLOWED: u16 = 7;
const DENIED: u16 = 8;

/// Two devices, a host behind the uplink with two services, and a daemon that guards them.
pub(super) struct Clinic {
    pub(super) one: Host,
    pub(super) two: Host,
    _far: Vec<wardline_tests::Server>,
    pub(super) guard: Guard,
    pub(super) ward: Ward,
}

impl Clinic {
    pub(super) fn new(name: &str, more: &str) -> Self {
        let ward = Ward::new(name);
        let (one, two) = (ward.device(1), ward.device(2));
        ward.lab.settle().unwrap();
        let far = [ALLOWED, DENIED].map(|port| ward.far.tcp_serve(port).unwrap());
        let guard = Guard::start(&ward.lab, more);
        Self {
            one,
            two,
            _far: far.into(),
            guard,
            ward,
        }
    }

    pub(super) fn document() -> String {
        policy(&[zone(1, "", ""), zone(2, "", "")], "tcp/7")
    }

    /// The path of something in the state directory.
    pub(super) fn state(&self, name: &str) -> std::path::PathBuf {
        self.guard
            .daemon
            .config()
            .with_file_name("state")
            .join(name)
    }

    /// Which of the two services a device reaches.
    pub(super) fn reaches(host: &Host) -> [bool; 2] {
        [ALLOWED, DENIED].map(|port| host.tcp_connect(FAR[0], port, TIMEOUT) == Outcome::Connected)
    }

    /// What the policy says: of both devices, in both directions.
    pub(super) fn is_enforced(&self) {
        assert_eq!(Self::reaches(&self.one), [true, false]);
        assert_eq!(Self::reaches(&self.two), [true, false]);
    }

    /// The same, with the second device in quarantine.
    pub(super) fn is_cut(&self) {
        assert_eq!(Self::reaches(&self.one), [true, false]);
        assert_eq!(Self::reaches(&self.two), [false, false]);
    }

    /// Everything that the kernel had is gone, as after a power cut, and this was done meanwhile.
    pub(super) fn reboot(&mut self, meanwhile: impl FnOnce(&Self)) {
        self.guard.daemon.kill9().unwrap();
        self.guard.daemon.detach().unwrap();
        meanwhile(self);
        self.guard.daemon.restart().unwrap();
    }

    pub(super) fn status(&self) -> Value {
        self.guard.ctl.json(&["status"]).unwrap()
    }

    /// What is said of a part that does not work; null: it works.
    pub(super) fn broken(&self, part: &str) -> Value {
        let status = self.status();
        let broken = status["broken"].as_array().unwrap().iter();
        let found = broken.into_iter().find(|it| it["name"] == part);
        found.map_or(Value::Null, |it| it["error"].clone())
    }

    /// Waits until a part works, or does not.
    pub(super) fn wait_for(&self, part: &str, works: bool) {
        let seen = eventually(3 * PATIENCE, || self.broken(part).is_null() == works);
        assert!(seen, "{part}: {:#}", self.status()["broken"]);
    }

    pub(super) fn kinds(&self) -> Vec<String> {
        let history = self.guard.ctl.json(&["history"]).unwrap();
        let kind = |it: &Value| it["kind"].as_str().unwrap().to_owned();
        history["revisions"]
            .as_array()
            .unwrap()
            .iter()
            .map(kind)
            .collect()
    }

    /// Makes the database garbage, and forgets what was not in it yet.
    fn spoil_database(&self) {
        fs::write(
            self.state("wardline.db"),
            "not a database, but longer than a header ".repeat(99),
        )
        .unwrap();
        let _ = fs::remove_file(self.state("wardline.db-wal"));
        let _ = fs::remove_file(self.state("wardline.db-shm"));
    }

    pub(super) fn spoil_copies(&self) {
        for slot in ["enforced/0", "enforced/1"] {
            if let Ok(mut bytes) = fs::read(self.state(slot)) {
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                fs::write(self.state(slot), bytes).unwrap();
            }
        }
    }
}

fn quarantine(clinic: &Clinic) -> Value {
    let arguments = ["quarantine", "device-2", "--reason", "odd"];
    clinic.guard.ctl.json(&arguments).unwrap()
}

#[test]
fn a_damaged_database_opens_nothing_and_the_copy_is_enforced() {
    let mut clinic = Clinic::new("damaged-database", "");
    clinic.guard.apply(&Clinic::document());
    clinic.is_enforced();
    clinic.reboot(Clinic::spoil_database);
    clinic.is_enforced();
    let told = clinic.broken("database");
    assert!(
        told.as_str().unwrap().contains("damaged or not a history"),
        "{told}"
    );
    let shown = clinic.guard.ctl.run(&["status"]).unwrap().stdout;
    assert!(shown.contains("broken    database, "), "{shown}");

    // What must be recorded is refused; what must not wait acts, and outlives another start.
    let refused = clinic
        .guard
        .ctl
        .apply(&Clinic::document().replace("needed", "other"));
    let refused = refused.unwrap();
    assert!(
        refused.code == 1 && refused.stderr.contains("wardline.db: not open"),
        "{refused:?}"
    );
    let answer = quarantine(&clinic);
    assert!(
        answer["warnings"][0]
            .as_str()
            .unwrap()
            .contains("not in the history"),
        "{answer}"
    );
    assert_eq!(Clinic::reaches(&clinic.two), [false, false]);
    let kept = eventually(PATIENCE, || clinic.broken("copy").is_null());
    assert!(kept, "{}", clinic.broken("copy"));
    clinic.guard.daemon.terminate().unwrap();
    clinic.guard.daemon.detach().unwrap();
    clinic.guard.daemon.restart().unwrap();
    assert_eq!(Clinic::reaches(&clinic.two), [false, false]);
    assert_eq!(Clinic::reaches(&clinic.one), [true, false]);

    // When the cause has gone, what is in force is recorded anew.
    fs::remove_file(clinic.state("wardline.db")).unwrap();
    clinic.wait_for("database", true);
    let recorded = eventually(PATIENCE, || {
        clinic.status()["unrecorded"] == serde_json::json!([])
    });
    assert!(recorded, "{:#}", clinic.status());
    assert_eq!(clinic.kinds(), ["recover"]);
    let warned = clinic.status()["warnings"].to_string();
    assert!(warned.contains("the database had no revision"), "{warned}");
    assert_eq!(Clinic::reaches(&clinic.two), [false, false]);
    clinic
        .guard
        .ctl
        .run(&["release", "device-2"])
        .unwrap()
        .ok()
        .unwrap();
    clinic
        .guard
        .apply(&Clinic::document().replace("needed", "other"));
    clinic.is_enforced();
}

#[test]
fn a_database_that_is_gone_is_told_and_made_again() {
    let mut clinic = Clinic::new("database-gone", "");
    clinic.guard.apply(&Clinic::document());
    quarantine(&clinic);
    clinic.reboot(|clinic| {
        fs::remove_file(clinic.state("wardline.db")).unwrap();
        let _ = fs::remove_file(clinic.state("wardline.db-wal"));
    });
    assert_eq!(Clinic::reaches(&clinic.one), [true, false]);
    assert_eq!(Clinic::reaches(&clinic.two), [false, false]);
    clinic.wait_for("database", true);
    let status = clinic.status();
    assert_eq!(status["revision"], 2);
    assert!(
        status["warnings"]
            .to_string()
            .contains("the database had no revision"),
        "{status:#}"
    );
    assert_eq!(clinic.kinds(), ["recover"]);
}

#[test]
fn a_copy_that_is_behind_gives_way_to_the_database() {
    let mut clinic = Clinic::new("old-copy", "");
    let old = Clinic::document().replace("tcp/7", "tcp/8");
    clinic.guard.apply(&old);
    let copied = |clinic: &Clinic| fs::read(clinic.state("enforced/1"));
    assert!(eventually(PATIENCE, || copied(&clinic).is_ok()));
    let first = copied(&clinic).unwrap();
    clinic.guard.apply(&Clinic::document());
    clinic.reboot(|clinic| {
        let _ = fs::remove_file(clinic.state("enforced/0"));
        fs::write(clinic.state("enforced/1"), first).unwrap();
    });
    clinic.is_enforced();
    assert_eq!(clinic.status()["revision"], 2);
}

#[test]
fn without_any_policy_ports_are_closed_until_it_can_be_had() {
    let failsafe = format!(
        "[[failsafe]]\nfrom = [\"{}\"]\nservices = [\"tcp/22\"]\n",
        v4(1)
    );
    let mut clinic = Clinic::new("closed", &failsafe);
    let _ssh = clinic.ward.lab.router().tcp_serve(22).unwrap();
    clinic.guard.apply(&Clinic::document());
    clinic.guard.daemon.terminate().unwrap();
    let saved = fs::read(clinic.state("wardline.db")).unwrap();
    clinic.guard.daemon.restart().unwrap();
    let spoil = |clinic: &Clinic| {
        clinic.spoil_database();
        clinic.spoil_copies();
    };
    clinic.reboot(spoil);
    let closed = |clinic: &Clinic| {
        assert_eq!(Clinic::reaches(&clinic.one), [false, false]);
        assert_eq!(Clinic::reaches(&clinic.two), [false, false]);
        let inward = clinic.ward.far.tcp_connect(&v4(2), ALLOWED, TIMEOUT);
        assert_ne!(inward, Outcome::Connected);
        // The failsafe holds.
        let in_by = clinic.one.tcp_connect("10.20.1.1", 22, TIMEOUT);
        assert_eq!(in_by, Outcome::Connected);
        assert_ne!(
            clinic.two.tcp_connect("10.20.2.1", 22, TIMEOUT),
            Outcome::Connected
        );
    };
    closed(&clinic);
    let told = clinic.broken("policy").to_string();
    assert!(told.contains("closed: lan1, lan2"), "{told}");

    // Nothing can be built on a makeshift.
    for arguments in [
        vec!["quarantine", "--port", "lan1", "--reason", "x"],
        vec!["release", "device-1"],
        vec!["delete", "device/device-1"],
    ] {
        let refused = clinic.guard.ctl.run(&arguments).unwrap();
        let told = refused
            .stderr
            .contains("only a whole document can be applied");
        assert!(refused.code == 4 && told, "{refused:?}");
    }

    // An empty database beside an audit is damage, too.
    clinic.reboot(|clinic| {
        fs::remove_file(clinic.state("wardline.db")).unwrap();
        fs::remove_dir_all(clinic.state("enforced")).unwrap();
    });
    closed(&clinic);
    let told = clinic.broken("database").to_string();
    assert!(
        told.contains("empty or gone, and the audit tells of revision 1"),
        "{told}"
    );

    // A backup is put back under the running daemon.
    fs::write(clinic.state("wardline.db"), saved).unwrap();
    clinic.wait_for("database", true);
    clinic.wait_for("policy", true);
    clinic.is_enforced();
    assert_eq!(clinic.status()["revision"], 1);

    // Who prefers an open network says so.
    let config = clinic.guard.daemon.config().to_owned();
    let text = fs::read_to_string(&config).unwrap();
    clinic.reboot(|clinic| {
        spoil(clinic);
        fs::write(&config, format!("on_failure = \"open\"\n{text}")).unwrap();
    });
    assert_eq!(Clinic::reaches(&clinic.two), [true, true]);
    let told = clinic.broken("policy").to_string();
    assert!(
        told.contains("no port is guarded, as on_failure says"),
        "{told}"
    );
}

#[test]
fn what_the_kernel_still_has_goes_on_when_nothing_else_has_it() {
    let mut clinic = Clinic::new("pins-only", "");
    clinic.guard.apply(&Clinic::document());
    clinic.guard.daemon.kill9().unwrap();
    clinic.spoil_database();
    clinic.spoil_copies();
    clinic.guard.daemon.restart().unwrap();
    clinic.is_enforced();
    let told = clinic.broken("policy").to_string();
    assert!(
        told.contains("the kernel goes on judging by revision 1"),
        "{told}"
    );
    // A port that appears is not in these tables. It is shut, and the others go on.
    let lab = &clinic.ward.lab;
    lab.router().ip("link del lan1").unwrap();
    clinic.ward.plug_in(&clinic.one, 1, &clinic.ward.port(1));
    let port = || {
        let status = clinic.status();
        let mut ports = status["ports"].as_array().unwrap().iter();
        ports.find(|it| it["interface"] == "lan1").cloned()
    };
    let is_shut = || port().is_some_and(|it| it["shut"] == "dropped" && it["attached"] == "none");
    assert!(eventually(PATIENCE, is_shut), "{:?}", port());
    assert_eq!(Clinic::reaches(&clinic.one), [false, false]);
    assert_eq!(Clinic::reaches(&clinic.two), [true, false]);
}

#[test]
fn a_limit_below_what_is_in_force_refuses_changes_and_not_the_policy() {
    let mut clinic = Clinic::new("small-limit", "");
    clinic.guard.apply(&Clinic::document());
    let config = clinic.guard.daemon.config().to_owned();
    let text = fs::read_to_string(&config).unwrap();
    clinic.reboot(|_| fs::write(&config, text + "[limits]\ndevices = 1\nrules = 1\n").unwrap());
    clinic.is_enforced();
    let three = policy(
        &[zone(1, "", ""), zone(2, "", ""), zone(3, "", "")],
        "tcp/7",
    );
    let refused = clinic.guard.ctl.apply(&three).unwrap();
    assert!(
        refused.code == 4 && refused.stderr.contains("limits.devices is"),
        "{refused:?}"
    );
}

#[test]
fn a_policy_in_a_strangers_directory_is_not_believed() {
    let mut clinic = Clinic::new("strange", "");
    clinic.guard.apply(&Clinic::document());
    clinic.is_enforced();
    let give = |clinic: &Clinic, owner: u32| {
        std::os::unix::fs::chown(clinic.state(""), Some(owner), None).unwrap();
    };
    clinic.reboot(|clinic| give(clinic, 65534));
    for host in [&clinic.one, &clinic.two] {
        assert_eq!(Clinic::reaches(host), [false, false]);
    }
    for part in ["policy", "database", "audit"] {
        let said = clinic.broken(part).to_string();
        assert!(said.contains("belongs to user 65534"), "{part}: {said}");
    }
    give(&clinic, 0);
    clinic.wait_for("database", true);
    clinic.wait_for("policy", true);
    clinic.is_enforced();
}

#[test]
fn an_older_daemon_leaves_what_it_can_not_read_and_what_judges() {
    let mut clinic = Clinic::new("downgrade", "");
    clinic.guard.apply(&Clinic::document());
    clinic.guard.daemon.terminate().unwrap();
    // As a newer version would have written it: pins, database and copies.
    let pins = clinic.guard.daemon.pins().to_owned();
    let newer = pins.join("v9999");
    let own = fs::read_dir(&pins).unwrap().next().unwrap().unwrap().path();
    fs::rename(&own, &newer).unwrap();
    let database = clinic.state("wardline.db");
    let copies = [0, 1].map(|slot| clinic.state(&format!("enforced/{slot}")));
    let replace = |from: &[u8], to: &[u8]| {
        let mut bytes = fs::read(&database).unwrap();
        let found = bytes.windows(from.len()).position(|it| it == from);
        let at = found.expect("the number of the schema");
        bytes[at..at + to.len()].copy_from_slice(to);
        fs::write(&database, bytes).unwrap();
    };
    let format = |digits: &[u8]| {
        for copy in copies.iter().filter(|copy| copy.exists()) {
            let mut bytes = fs::read(copy).unwrap();
            bytes[5..8].copy_from_slice(digits);
            fs::write(copy, bytes).unwrap();
        }
    };
    replace(b"schema4", b"schema9");
    format(b"009");
    let files = || [&database, &copies[0], &copies[1]].map(|path| fs::read(path).ok());
    let before = files();
    clinic.guard.daemon.restart().unwrap();
    clinic.is_enforced();
    let told = clinic.broken("policy").to_string();
    assert!(
        told.contains("the kernel goes on judging by revision 1"),
        "{told}"
    );
    let told = clinic.broken("database").to_string();
    assert!(told.contains("run the newer one"), "{told}");
    let refused = clinic.guard.ctl.apply(&Clinic::document()).unwrap();
    assert!(refused.code != 0, "{refused:?}");
    clinic.is_enforced();
    clinic.guard.daemon.terminate().unwrap();
    assert!(
        files() == before,
        "nothing of the newer version's is written"
    );
    assert!(fs::read_dir(newer.join("links")).unwrap().next().is_some());

    // With files that it can read it takes over from the newer version.
    replace(b"schema9", b"schema4");
    format(b"001");
    clinic.guard.daemon.restart().unwrap();
    clinic.is_enforced();
    assert!(!newer.exists());
}
