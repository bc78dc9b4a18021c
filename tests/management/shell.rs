//! What a shell completes, by the script that `wardctl completions` prints for it.

use std::process::{Command, Stdio};

use wardline_tests::{
    Lab,
    ward::{Guard, program},
};

const POLICY: &str = "\
version: 1
zones: [{name: pumps, subnets: [10.1.0.0/16]}]
ports: [{interface: lan7, zone: pumps}]
devices: [{name: pump-1, zone: pumps, addresses: [10.1.0.1]}, {name: pump-2, zone: pumps, addresses: [10.1.0.2]}]
services: [{name: hl7, ports: [tcp/2575]}]
rules: [{name: among-pumps, from: [zone:pumps], to: [zone:pumps], services: [hl7], action: allow}]
";

/// What bash offers after a line, by the script that it loads.
fn offered(line: &str) -> Vec<String> {
    let wardctl = program("WARDLINE_WARDCTL");
    let script = Command::new(&wardctl)
        .args(["completions", "bash"])
        .output()
        .unwrap();
    assert!(script.status.success());
    // As bash calls it: the words of the line, the last of which is being typed.
    let ask = format!(
        "{}\nCOMP_WORDS=({line})\n[ \"${{1:-}}\" ] && COMP_WORDS+=('')\n\
         COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))\nCOMP_TYPE=9\n\
         _clap_complete_wardctl wardctl \"${{COMP_WORDS[COMP_CWORD]}}\" x\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        String::from_utf8(script.stdout).unwrap()
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &ask, "bash"]);
    if line.ends_with(' ') {
        bash.arg("begins a word");
    }
    let path = format!(
        "{}:{}",
        wardctl.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let output = bash
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|word| word.trim().to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn a_shell_completes_names_that_the_router_knows() {
    let lab = Lab::new("shell").unwrap();
    let guard = Guard::start(&lab, "");
    guard.apply(POLICY);
    let server = guard.ctl.server();
    for (line, expected) in [
        ("quarantine pu", &["pump-1", "pump-2"][..]),
        ("quarantine --port la", &["lan7"]),
        ("delete rule/", &["rule/among-pumps"]),
        ("explain --from device:pump-1 --to zone:", &["zone:pumps"]),
        ("explain --from router --to zone:pumps hl", &["hl7"]),
        ("revoke ", &["among-pumps"]),
        ("quar", &["quarantine"]),
    ] {
        let words = offered(&format!("wardctl --server {server} {line}"));
        for word in expected {
            assert!(words.contains(&(*word).to_owned()), "{line}: {words:?}");
        }
    }
    // Without a router there are commands, and no names; and it does not take long.
    let nowhere = "wardctl --server unix:///nowhere.sock";
    assert!(offered(&format!("{nowhere} quarantine pu")).is_empty());
    assert_eq!(offered(&format!("{nowhere} quar")), ["quarantine"]);
    drop(guard);
    lab.close().unwrap();
}
