//! `wardlined --recover`: what it has back of damaged files, and what starts tell of damage.

use std::fs;

use super::damage::Clinic;

/// A router that had a policy and a device in quarantine, and whose daemon is stopped.
fn stopped(name: &str) -> Clinic {
    let mut clinic = Clinic::new(name, "");
    clinic.guard.apply(&Clinic::document());
    let cut = ["quarantine", "device-2", "--reason", "odd"];
    clinic.guard.ctl.json(&cut).unwrap();
    let told = clinic.guard.daemon.run(&["--recover"]).unwrap();
    assert!(told.stderr.contains("a daemon answers"), "{told:?}");
    clinic.guard.daemon.terminate().unwrap();
    let told = clinic.recover(&[]);
    assert!(told.contains("nothing is damaged"), "{told}");
    clinic
}

impl Clinic {
    fn recover(&self, more: &[&str]) -> String {
        let words = [&["--recover"], more].concat();
        self.guard.daemon.run(&words).unwrap().ok().unwrap()
    }

    fn remove(&self, names: &[&str]) {
        for name in names {
            let path = self.state(name);
            let _ = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
        }
    }

    fn reboot_stopped(&mut self) {
        self.guard.daemon.detach().unwrap();
        self.guard.daemon.restart().unwrap();
    }
}

const DATABASE: [&str; 2] = ["wardline.db", "wardline.db-wal"];

#[test]
fn a_database_that_is_gone_empty_or_garbage_is_made_from_the_copy() {
    let mut clinic = stopped("recover-copy");
    for (number, content) in [(3, None), (4, Some("")), (5, Some("garbage "))] {
        clinic.remove(&DATABASE);
        if let Some(content) = content {
            fs::write(clinic.state("wardline.db"), content.repeat(1000)).unwrap();
        }
        let told = clinic.recover(&["--check"]);
        let before = number - 1;
        assert!(
            told.contains(&format!("revision {before} in force, from the copy")),
            "{told}"
        );
        assert!(told.contains("nothing was changed"), "{told}");
        let told = clinic.recover(&[]);
        assert!(told.contains(&format!("with revision {number}")), "{told}");
        clinic.reboot_stopped();
        clinic.is_cut();
        assert_eq!(clinic.status()["revision"], number);
        assert_eq!(clinic.status()["broken"], serde_json::json!([]));
        assert_eq!(clinic.kinds(), ["recover"]);
        clinic
            .guard
            .ctl
            .run(&["audit", "--verify"])
            .unwrap()
            .ok()
            .unwrap();
        clinic.guard.daemon.terminate().unwrap();
    }
}

#[test]
fn copies_are_made_from_the_database() {
    let mut clinic = stopped("recover-database");
    clinic.spoil_copies();
    let told = clinic.recover(&[]);
    assert!(
        told.contains("revision 2 in force, from the database"),
        "{told}"
    );
    assert!(
        told.contains("the copy of what is in force was made anew"),
        "{told}"
    );
    assert!(clinic.recover(&[]).contains("nothing is damaged"));
    clinic.remove(&DATABASE);
    clinic.reboot_stopped();
    clinic.is_cut();
}

#[test]
fn with_audit_and_kernel_only_the_numbers_go_on_and_the_kernel_judges() {
    let mut clinic = stopped("recover-nothing");
    clinic.remove(&DATABASE);
    clinic.remove(&["enforced", "guarded"]);
    let told = clinic.recover(&[]);
    for words in [
        "tells of revision 2",
        "judges by revision 2",
        "the document that was in force",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    clinic.guard.daemon.restart().unwrap();
    clinic.is_cut();
    let told = clinic.broken("policy").to_string();
    assert!(told.contains("goes on judging by revision 2"), "{told}");
    clinic.wait_for("database", true);
    clinic.guard.apply(&Clinic::document());
    clinic.is_enforced();
    assert_eq!(clinic.status()["revision"], 4);
    assert_eq!(clinic.kinds(), ["apply", "lost"]);
    clinic.wait_for("policy", true);
}

#[test]
fn each_trace_of_a_history_makes_an_empty_database_damage() {
    let mut clinic = stopped("recover-traces");
    let keep = clinic.state("").with_file_name("kept");
    fs::rename(clinic.state(""), &keep).unwrap();
    for (trace, told) in [
        ("audit.jsonl", "the audit tells of revision 2"),
        ("guarded", "ports were guarded: lan1, lan2"),
        ("pins", "the kernel judges by revision 2"),
        ("enforced/1", "there is a damaged copy"),
    ] {
        let _ = fs::remove_dir_all(clinic.state(""));
        fs::create_dir_all(clinic.state("enforced")).unwrap();
        match trace {
            // They are there as long as nobody detaches.
            "pins" => {}
            "enforced/1" => {
                clinic.guard.daemon.detach().unwrap();
                fs::write(clinic.state(trace), "garbage").unwrap();
            }
            trace => drop(fs::copy(keep.join(trace), clinic.state(trace)).unwrap()),
        }
        clinic.guard.daemon.restart().unwrap();
        let database = clinic.broken("database").to_string();
        assert!(database.contains(told), "{trace}: {database}");
        assert!(database.contains("wardlined --recover"), "{database}");
        assert!(!clinic.broken("policy").is_null(), "{trace}");
        clinic.guard.daemon.terminate().unwrap();
    }
}
