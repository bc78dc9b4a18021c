//! A disk that is full or read-only: what must not wait takes force, and is recorded when it can be.

use std::{fs, path::PathBuf, process::Command};

use wardline_tests::{
    Outcome, TIMEOUT, eventually,
    ward::{FAR, PATIENCE},
};

use super::damage::Clinic;

/// Something mounted, taken off when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: PathBuf, commands: &[&[&str]]) -> Self {
        let text = path.to_str().unwrap();
        for words in commands {
            let words = words
                .iter()
                .map(|word| if *word == "HERE" { text } else { word });
            assert!(
                Command::new("mount")
                    .args(words)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

const CUT: [&str; 4] = ["quarantine", "device-2", "--reason", "odd"];

#[test]
fn a_read_only_disk_keeps_nobody_from_being_cut_off() {
    let mut clinic = Clinic::new("read-only", "");
    clinic.guard.apply(&Clinic::document());
    let mut mounted = None;
    clinic.reboot(|clinic| {
        let commands: &[&[&str]] = &[
            &["--bind", "HERE", "HERE"],
            &["-o", "remount,ro,bind", "HERE"],
        ];
        mounted = Some(Mounted::new(clinic.state(""), commands));
    });
    clinic.is_enforced();
    for part in ["database", "audit"] {
        assert!(
            clinic.broken(part).to_string().contains("Read-only"),
            "{part}"
        );
    }
    let refused = clinic.guard.ctl.apply(&Clinic::document()).unwrap();
    assert!(
        refused.code == 1 && refused.stderr.contains("the audit can't be written"),
        "{refused:?}"
    );
    clinic.guard.ctl.run(&CUT).unwrap().ok().unwrap();
    assert_eq!(Clinic::reaches(&clinic.two), [false, false]);
    clinic.wait_for("copy", false);
    clinic
        .guard
        .ctl
        .run(&["release", "device-2"])
        .unwrap()
        .ok()
        .unwrap();
    assert_eq!(Clinic::reaches(&clinic.two), [true, false]);
    clinic.guard.ctl.run(&CUT).unwrap().ok().unwrap();
    assert_eq!(clinic.status()["unrecorded"], serde_json::json!([2, 3, 4]));

    drop(mounted);
    for part in ["database", "audit", "copy"] {
        clinic.wait_for(part, true);
    }
    let all = eventually(4 * TIMEOUT, || {
        clinic.kinds() == ["quarantine", "release", "quarantine", "apply"]
    });
    assert!(all, "{:?}", clinic.kinds());
    assert_eq!(clinic.status()["unrecorded"], serde_json::json!([]));
    let audit = clinic
        .guard
        .ctl
        .run(&["audit", "--verify"])
        .unwrap()
        .ok()
        .unwrap();
    assert!(audit.contains("nothing missing or changed"), "{audit}");
    let audit = clinic.guard.ctl.run(&["audit"]).unwrap().ok().unwrap();
    let cut = audit.lines().filter(|line| line.contains("Quarantine  ok"));
    assert_eq!(cut.count(), 2, "{audit}");
    clinic.reboot(|_| ());
    assert_eq!(Clinic::reaches(&clinic.two), [false, false]);
}

#[test]
fn a_full_disk_keeps_no_unconfirmed_change_in_force() {
    let mut clinic = Clinic::new("full", "");
    let mut mounted = None;
    clinic.reboot(|clinic| {
        let commands: &[&[&str]] = &[&[
            "-t",
            "tmpfs",
            "-o",
            "size=4m,mode=700",
            "wardline-test",
            "HERE",
        ]];
        mounted = Some(Mounted::new(clinic.state(""), commands));
    });
    clinic.guard.apply(&Clinic::document());
    let open = clinic.state("../open.yaml");
    fs::write(&open, Clinic::document().replace("tcp/7", "tcp/7, tcp/8")).unwrap();
    let arguments = [
        "apply",
        "-f",
        open.to_str().unwrap(),
        "--confirm-within",
        "4s",
    ];
    clinic.guard.ctl.run(&arguments).unwrap().ok().unwrap();
    assert_eq!(Clinic::reaches(&clinic.one), [true, true]);
    // Until nothing more goes on it.
    let ballast = clinic.state("ballast");
    let full = fs::write(&ballast, vec![0; 8 << 20]);
    assert!(full.is_err());

    let closes = || clinic.one.tcp_connect(FAR[0], 8, TIMEOUT) != Outcome::Connected;
    assert!(eventually(PATIENCE, closes), "{:#}", clinic.status());
    assert_eq!(Clinic::reaches(&clinic.one), [true, false]);
    assert!(clinic.status()["pending"].is_null());
    clinic.guard.ctl.run(&CUT).unwrap().ok().unwrap();
    assert_eq!(Clinic::reaches(&clinic.two), [false, false]);
    assert!(
        !clinic.broken("database").is_null(),
        "{:#}",
        clinic.status()
    );

    fs::remove_file(&ballast).unwrap();
    clinic.wait_for("database", true);
    let all = eventually(8 * TIMEOUT, || {
        clinic.kinds() == ["quarantine", "revert", "apply", "apply"]
    });
    assert!(all, "{:?}", clinic.kinds());
    clinic.reboot(|_| ());
    assert_eq!(Clinic::reaches(&clinic.one), [true, false]);
    assert_eq!(Clinic::reaches(&clinic.two), [false, false]);
    drop(clinic);
    drop(mounted);
}
