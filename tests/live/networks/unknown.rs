//! Devices that nobody has listed: who they are, what they say of themselves, and how they get into the
//! document.

use std::fs;

use serde_json::Value;
use wardline_tests::{
    End, Host, Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac},
};

use crate::live::servers::{dnsmasq, global_address, has, has_dnsmasq, takes_lease_as};

fn unknown(guard: &Guard) -> Vec<Value> {
    let list = guard.ctl.json(&["devices", "--unknown"]).unwrap();
    list["unknown"].as_array().unwrap().clone()
}

fn policy(hook: &str, mode: &str) -> String {
    format!(
        "version: 1\nzones:\n  - {{name: ward, subnets: [10.20.1.0/24]{mode}}}\nports:\n  \
         - {{interface: lan1, zone: ward, attach: {hook}}}\nrules:\n  \
         - {{name: web, from: [zone:ward], to: [\"cidr:198.51.100.0/24\"], services: [tcp/7], \
         action: allow}}\n"
    )
}

#[test]
fn who_is_dropped_says_who_it_is_and_is_adopted_at_xdp() {
    adopted("adopt-xdp", "xdp");
}

#[test]
fn who_is_dropped_says_who_it_is_and_is_adopted_at_tc() {
    adopted("adopt-tc", "tc");
}

fn adopted(name: &str, hook: &str) {
    if !has_dnsmasq("adopt") || !has("adopt", "busybox", "--list") {
        return;
    }
    let ward = Ward::new(name);
    let pump = ward.bare(1, &ward.port(1));
    ward.lab.settle().unwrap();
    let _leases = dnsmasq(
        &ward.lab,
        ward.lab.router(),
        &[
            "--interface=lan1",
            "--dhcp-range=10.20.1.100,10.20.1.150,255.255.255.0,1h",
            "--dhcp-option=option:router,10.20.1.1",
            "--dhcp-authoritative",
            "--no-ping",
        ],
    );
    let _far = ward.far.tcp_serve(7).unwrap();
    let mut guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(hook, ""));
    let url = "https://example.com/pump.json";
    let hex: String = url.bytes().map(|byte| format!("{byte:02x}")).collect();
    let says = [
        "-x",
        "hostname:pump-7",
        "-V",
        "pumps 3.1",
        "-x",
        &format!("0xa1:{hex}"),
    ];
    assert!(!takes_lease_as(&ward.lab, &pump, &says), "nobody knows it");
    let mut list = Vec::new();
    let is_told = eventually(PATIENCE, || {
        list = unknown(&guard);
        list.len() == 1 && list[0]["hostname"] == "pump-7" && list[0]["dropped"] != 0
    });
    assert!(is_told, "{list:#?}");
    let told = &list[0];
    assert_eq!(told["mac"], *mac(1));
    assert_eq!(
        (&told["port"], &told["zone"]),
        (&"lan1".into(), &"ward".into())
    );
    assert_eq!(told["vendor_class"], "pumps 3.1");
    assert_eq!(told["mud_url"], url, "{told:#}");
    assert_eq!(told["drops"][0]["reason"], "unknown_device");

    // As a switch writes it; under a name that is free, in a zone that there is.
    let cisco = mac(1).replace(':', "");
    let cisco = format!("{}.{}.{}", &cisco[..4], &cisco[4..8], &cisco[8..]);
    let adopt = |name: &str, zone: &str| {
        let arguments = [
            "adopt", &cisco, "--name", name, "--zone", zone, "--port", "lan1",
        ];
        guard.ctl.run(&arguments).unwrap()
    };
    assert_eq!(adopt("pump-7", "nowhere").code, 4);
    adopt("pump-7", "ward").ok().unwrap();
    assert_eq!(adopt("pump-7", "ward").code, 4, "the name is taken");
    assert!(
        takes_lease_as(&ward.lab, &pump, &says),
        "{:?}",
        guard.drops()
    );
    assert!(global_address(&pump, "inet").is_some());
    assert_eq!(pump.tcp_connect(FAR[0], 7, TIMEOUT), Outcome::Connected);
    assert!(unknown(&guard).is_empty());

    // What is known is there after a restart.
    guard.daemon.terminate().unwrap();
    guard.daemon.restart().unwrap();
    let devices = guard.ctl.json(&["devices"]).unwrap();
    let facts = &devices["devices"][0]["facts"];
    assert_eq!(facts["hostname"], "pump-7", "{devices:#}");
    assert_eq!(
        (&facts["mud_url"], &facts["vendor"]),
        (&url.into(), &"".into())
    );
}

/// Devices on one switch that nobody has listed.
const DEVICES: u8 = 20;

#[test]
fn what_observed_devices_did_goes_on_once_their_table_is_imported() {
    let ward = Ward::new("import");
    let switch = ward.lab.host("switch").unwrap();
    ward.lab.bridge(&switch, "br0", &[]).unwrap();
    let trunk = End::new(&switch, "trunk").master("br0");
    ward.lab.wire(&ward.port(1), &trunk).unwrap();
    let devices: Vec<Host> = (0..DEVICES)
        .map(|at| {
            let host = ward.lab.host(&format!("device-{at}")).unwrap();
            let end = End::new(&host, "eth0")
                .mac(&mac(100 + at))
                .address(&format!("10.20.1.{}/24", 50 + at))
                .gateway("10.20.1.1");
            let port = End::new(&switch, &format!("p{at}")).master("br0");
            ward.lab.wire(&end, &port).unwrap();
            host
        })
        .collect();
    ward.lab.settle().unwrap();
    let _far = ward.far.tcp_serve(7).unwrap();
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&policy("auto", ", mode: observe"));
    let reach = || {
        let reach = |host: &Host| host.tcp_connect(FAR[0], 7, TIMEOUT) == Outcome::Connected;
        devices.iter().filter(|host| reach(host)).count()
    };
    let mut list = Vec::new();
    let all = eventually(4 * PATIENCE, || {
        assert_eq!(reach(), devices.len(), "{:?}", guard.drops());
        list = unknown(&guard);
        list.len() == devices.len()
    });
    assert!(all, "{} are listed", list.len());

    // Somebody names them in a spreadsheet.
    let csv = guard
        .ctl
        .run(&["devices", "--unknown", "-o", "csv"])
        .unwrap();
    let csv = csv.ok().unwrap();
    let named = |(at, line): (usize, &str)| match at {
        0 => format!("asset,{line}\r\n"),
        at => format!("pump-{at},{line}\r\n"),
    };
    let named: String = csv.lines().enumerate().map(named).collect();
    let file = ward.lab.dir().join("devices.csv");
    let path = file.to_str().unwrap();
    let import = |more: &[&str]| {
        let arguments = [&["import", "-f", path, "--map", "name=asset"], more].concat();
        guard.ctl.run(&arguments).unwrap()
    };
    fs::write(&file, format!("{named}pump-3,odd\r\n")).unwrap();
    let refused = import(&[]);
    let line = format!("{path}:{}: has 2 cells", devices.len() + 2);
    assert!(
        refused.code == 4 && refused.stderr.contains(&line),
        "{refused:?}"
    );
    fs::write(&file, named.replace(",ward,", ",nowhere,")).unwrap();
    let refused = import(&[]);
    assert!(
        refused.code == 4 && refused.stderr.contains(&format!("{path}:2: zone: ")),
        "{refused:?}"
    );
    fs::write(&file, &named).unwrap();
    let plan = import(&["--plan"]).ok().unwrap();
    assert!(plan.contains("20 to add"), "{plan}");
    assert_eq!(
        unknown(&guard).len(),
        devices.len(),
        "a plan changes nothing"
    );
    import(&["--reason", "inventory"]).ok().unwrap();
    assert!(unknown(&guard).is_empty());
    let history = guard.ctl.json(&["history"]).unwrap();
    assert_eq!(history["revisions"][0]["kind"], "import", "{history:#}");

    let zone = ward.lab.dir().join("zone.yaml");
    fs::write(&zone, "zones: [{name: ward, subnets: [10.20.1.0/24]}]\n").unwrap();
    let put = guard.ctl.run(&["put", "-f", zone.to_str().unwrap()]);
    put.unwrap().ok().unwrap();
    assert_eq!(reach(), devices.len(), "{:?}", guard.drops());
}
