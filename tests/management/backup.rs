//! A backup, taken under traffic, restored on another router; and backups that are damaged.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::damage::Clinic;

#[test]
fn a_backup_makes_another_router_the_same() {
    let first = Clinic::new("backup", "");
    first.guard.apply(&Clinic::document());
    let cut = ["quarantine", "device-2", "--reason", "odd"];
    first.guard.ctl.json(&cut).unwrap();
    first.is_cut();
    let file = first.ward.lab.dir().join("edge.wlb");
    let name = file.to_str().unwrap();
    let answer = first.guard.ctl.json(&["backup", "-f", name]).unwrap();
    assert_eq!(
        (&answer["revision"], &answer["revisions"]),
        (&2.into(), &2.into())
    );
    assert_eq!(answer["quarantined"]["devices"][0], "device-2");
    assert!(
        answer["audit_head"].as_str().unwrap().starts_with("2:"),
        "{answer}"
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // A file that is there is not replaced by accident.
    let refused = first.guard.ctl.run(&["backup", "-f", name]).unwrap();
    assert!(
        refused.code == 4 && refused.stderr.contains("--overwrite"),
        "{refused:?}"
    );
    let again = first.guard.ctl.run(&["backup", "-f", name, "--overwrite"]);
    again.unwrap().ok().unwrap();
    let piped = first
        .guard
        .ctl
        .run(&["backup", "-f", "-"])
        .unwrap()
        .ok()
        .unwrap();
    assert!(piped.starts_with("WLBAK001"));

    let mut second = Clinic::new("restore", "");
    let running = second.guard.daemon.run(&["--restore", name]).unwrap();
    assert!(
        running.code == 1 && running.stderr.contains("a daemon answers"),
        "{running:?}"
    );
    second.guard.daemon.terminate().unwrap();

    // Whatever is wrong with the file, nothing is changed.
    let whole = fs::read(&file).unwrap();
    let spoilt = second.ward.lab.dir().join("spoilt.wlb");
    let names = |clinic: &Clinic| {
        let mut names: Vec<_> = fs::read_dir(clinic.state(""))
            .unwrap()
            .map(|it| it.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = names(&second);
    for at in [0, 9, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        for bytes in [&bytes[..], &whole[..at]] {
            fs::write(&spoilt, bytes).unwrap();
            let checked = second
                .guard
                .ctl
                .run(&["backup", "--check", spoilt.to_str().unwrap()]);
            assert_eq!(checked.unwrap().code, 4, "byte {at}");
            let refused = second
                .guard
                .daemon
                .run(&["--restore", spoilt.to_str().unwrap()])
                .unwrap();
            assert_eq!(refused.code, 1, "byte {at}: {refused:?}");
            assert_eq!(names(&second), before, "byte {at}");
        }
    }
    let looked = second
        .guard
        .daemon
        .run(&["--restore", name, "--check"])
        .unwrap()
        .ok()
        .unwrap();
    assert!(looked.contains("nothing was changed"), "{looked}");
    assert_eq!(names(&second), before);

    let told = second
        .guard
        .daemon
        .run(&["--restore", name])
        .unwrap()
        .ok()
        .unwrap();
    assert!(
        told.contains("1 in quarantine") && told.contains("revision 3"),
        "{told}"
    );
    second.guard.daemon.restart().unwrap();
    second.is_cut();
    assert_eq!(second.status()["revision"], 3);
    assert_eq!(second.status()["broken"], serde_json::json!([]));
    assert_eq!(second.kinds(), ["restore", "quarantine", "apply"]);
    let old = second.guard.ctl.run(&["get", "1"]).unwrap().ok().unwrap();
    assert!(old.contains("device-2"), "{old}");
    let audit = second.guard.ctl.run(&["audit"]).unwrap().ok().unwrap();
    assert!(audit.contains("audit head 2:"), "{audit}");
    second
        .guard
        .ctl
        .run(&["audit", "--verify"])
        .unwrap()
        .ok()
        .unwrap();
    second
        .guard
        .ctl
        .run(&["release", "device-2"])
        .unwrap()
        .ok()
        .unwrap();
    second
        .guard
        .apply(&Clinic::document().replace("needed", "other"));
    second.is_enforced();
    assert_eq!(second.status()["revision"], 5);

    // The reboot begins from what was restored, too; and a second restore sets aside what is there.
    second.guard.daemon.terminate().unwrap();
    let refused = second.guard.daemon.run(&["--restore", name]).unwrap();
    assert!(
        refused.code == 1 && refused.stderr.contains("--replace"),
        "{refused:?}"
    );
    let told = second
        .guard
        .daemon
        .run(&["--restore", name, "--replace"])
        .unwrap()
        .ok()
        .unwrap();
    assert!(
        told.contains("revision 6") && told.contains("aside-"),
        "{told}"
    );
    second.guard.daemon.detach().unwrap();
    second.guard.daemon.restart().unwrap();
    second.is_cut();
    assert_eq!(second.kinds(), ["restore", "quarantine", "apply"]);
}
