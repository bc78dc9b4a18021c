//! The certificates of a first day: `wardctl setup tls` makes them, and the daemon takes them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use wardline_tests::{Ctl, Daemon, Lab, Settings, ward::program};

use super::POLICY;

/// Runs wardctl on the router, and returns its exit code and what it printed.
fn wardctl(lab: &Lab, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(program("WARDLINE_WARDCTL"));
    command
        .args(words)
        .env("HOME", lab.dir())
        .current_dir(lab.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = lab.router().spawn(&mut command).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn certificates_of_a_first_day_work_as_they_are_told() {
    let lab = Lab::new("first-day").unwrap();
    let folder = lab.dir().join("tls");
    let make = |more: &[&str]| {
        let words = ["setup", "tls", "--directory", "tls", "--name", "10.9.0.1"];
        wardctl(&lab, &[&words, more].concat())
    };
    let (code, told, complaints) = make(&[]);
    assert_eq!((code, complaints.as_str()), (0, ""), "{told}");
    for name in ["ca", "router", "operator"] {
        assert_eq!(mode(&folder.join(format!("{name}.pem"))), 0o644, "{name}");
        assert_eq!(mode(&folder.join(format!("{name}.key"))), 0o600, "{name}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 6);

    // What it prints for the configuration is put there as it is.
    let table = told.split("[api]\n").nth(1).unwrap();
    let settings = Settings {
        api: table.split("\n\n").next().unwrap().to_owned(),
        ..Settings::default()
    };
    let daemon = Daemon::start(&lab, &program("WARDLINE_WARDLINED"), &settings).unwrap();
    let ctl = Ctl::new(&program("WARDLINE_WARDCTL"), &daemon).unwrap();
    ctl.apply(POLICY).unwrap().ok().unwrap();

    // And so is what it prints for the person, but for the address: this lab has no 10.9.0.1.
    let line = told
        .lines()
        .find(|line| line.starts_with("wardctl context set"));
    let line = line.unwrap().replace("10.9.0.1", "127.0.0.1");
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    assert_eq!(wardctl(&lab, &words).0, 0, "{line}");
    let (code, status, complaints) = wardctl(&lab, &["status"]);
    assert_eq!(code, 0, "{complaints}");
    assert!(status.contains("lab-router"), "{status}");
    // An operator may cut devices off, and may not change the policy.
    fs::write(lab.dir().join("p.yaml"), POLICY).unwrap();
    let (code, _, complaints) = wardctl(&lab, &["apply", "-f", "p.yaml"]);
    assert_eq!(code, 4, "{complaints}");
    assert!(complaints.contains("role operator"), "{complaints}");

    // Nothing is replaced by accident.
    let key = || fs::read(folder.join("operator.key")).unwrap();
    let before = key();
    let (code, _, complaints) = make(&[]);
    assert_eq!(code, 4);
    assert!(complaints.contains("--overwrite"), "{complaints}");
    assert_eq!(key(), before);
    let (code, _, complaints) = make(&["--overwrite"]);
    assert_eq!(code, 0, "{complaints}");
    assert_ne!(key(), before);
    // Another person's does not replace the authority's either.
    let (code, _, complaints) = make(&["--person", "ada"]);
    assert!(complaints.contains("ca.pem"), "{complaints}");
    assert_eq!(code, 4);
    drop(daemon);
    lab.close().unwrap();
}

#[test]
fn a_name_that_no_host_has_is_usage() {
    let lab = Lab::new("no-name").unwrap();
    for name in ["", "a b", "ward 3", "http://ward-3"] {
        let words = ["setup", "tls", "--directory", "tls", "--name", name];
        let (code, _, complaints) = wardctl(&lab, &words);
        assert_eq!(code, 2, "{name:?}: {complaints}");
    }
    assert!(!lab.dir().join("tls").exists());
    lab.close().unwrap();
}
