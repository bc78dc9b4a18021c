//! Servers and clients of Debian that tests of addresses run: dnsmasq and busybox.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use wardline_tests::{Host, Lab, Program, eventually, ward::skip};

/// Whether a host gets a lease for its eth0 from a DHCP server; it then has the address and the
/// default route.
pub(crate) fn takes_lease(lab: &Lab, host: &Host) -> bool {
    takes_lease_as(lab, host, &["-t", "10"])
}

/// The same with further arguments of the client, such as what it says of itself.
pub(crate) fn takes_lease_as(lab: &Lab, host: &Host, more: &[&str]) -> bool {
    let script = lab.dir().join("udhcpc");
    let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip address replace \"$ip/$mask\" dev \
                \"$interface\"\nip route replace default via \"$router\"\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut client = Command::new("busybox");
    client
        .args(["udhcpc", "-f", "-q", "-n", "-i", "eth0", "-T", "1", "-s"])
        .arg(&script)
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut client = host.start(&mut client).unwrap();
    let mut ended = None;
    eventually(Duration::from_secs(20), || {
        ended = client.ended().unwrap();
        ended.is_some()
    });
    ended.is_some_and(|status| status.success())
}

/// The first global address of a host that is not tentative any more.
pub(crate) fn global_address(host: &Host, family: &str) -> Option<String> {
    let links: Value = serde_json::from_str(&host.ip("-json address show eth0").unwrap()).unwrap();
    let ready = |address: &&Value| {
        address["family"] == family && address["scope"] == "global" && address["tentative"] != true
    };
    let address = links[0]["addr_info"].as_array()?.iter().find(ready)?;
    assert_ne!(address["dadfailed"], true);
    Some(address["local"].as_str()?.to_owned())
}

pub(crate) fn has_dnsmasq(name: &str) -> bool {
    has(name, "dnsmasq", "--version")
}

/// Whether a program is installed; if not, reports that the test is skipped.
pub(crate) fn has(name: &str, program: &str, argument: &str) -> bool {
    let found = Command::new(program)
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        skip(name, &format!("no program {program}"));
    }
    found
}

pub(crate) fn dnsmasq(lab: &Lab, host: &Host, arguments: &[&str]) -> Program {
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
        ])
        .args(["--user=root", "--bind-interfaces"])
        .arg(format!(
            "--dhcp-leasefile={}",
            lab.dir().join(format!("leases-{}", host.name())).display()
        ))
        .arg(format!(
            "--log-facility={}",
            lab.dir().join(format!("dnsmasq-{}", host.name())).display()
        ))
        .args(arguments)
        .stdin(Stdio::null());
    // It answers for names only where a test asks for that, and takes an option once.
    if !arguments.iter().any(|it| it.starts_with("--port=")) {
        dnsmasq.arg("--port=0");
    }
    host.start(&mut dnsmasq).unwrap()
}
