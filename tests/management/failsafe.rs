//! The failsafe: sources that the router's own configuration names reach it under every policy.

use serde_json::json;
use wardline_tests::{
    Host, Outcome, TIMEOUT,
    ward::{FAR, Guard, Ward, mac, v4, v6, zone},
};

/// The router's addresses in a device's network.
fn router(net: u8) -> [String; 2] {
    [format!("10.20.{net}.1"), format!("fd20:0:0:{net}::1")]
}

/// A policy of zones 1 and 2; `rules` are all that there are.
fn policy(ports: &str, devices: &str, rules: &str) -> String {
    let zones: String = [1, 2].map(|net| zone(net, "", "")[0].clone()).concat();
    format!("version: 1\nzones:\n{zones}ports:\n{ports}devices:\n{devices}rules:\n{rules}")
}

const DENY: &str = "  - {name: shut, from: [any], to: [router], action: deny}\n";

#[test]
fn who_is_named_reaches_the_router_under_every_policy() {
    let ward = Ward::new("failsafe");
    let (operator, other) = (ward.device(1), ward.device(2));
    ward.lab.settle().unwrap();
    let lists = |port: &str| {
        let [one, two] = [zone(1, "", ""), zone(2, "", "")];
        (format!("{port}{}", two[1]), format!("{}{}", one[2], two[2]))
    };
    let _ssh = ward.lab.router().tcp_serve(22).unwrap();
    let _telnet = ward.lab.router().tcp_serve(23).unwrap();
    let _far = ward.far.tcp_serve(22).unwrap();
    let addresses = format!("from = [\"{}\", \"{}\"]", v4(1), v6(1));
    let list = format!("[[failsafe]]\n{addresses}\nservices = [\"tcp/22\", \"icmp/8\"]\n");
    let mut guard = Guard::start(&ward.lab, &list);
    let told = json!([{
        "from": [format!("{}/32", v4(1)), format!("{}/128", v6(1))],
        "services": ["tcp/22", "icmp/8"],
    }]);
    assert_eq!(guard.ctl.json(&["status"]).unwrap()["failsafe"], told);

    // Forgets all neighbours, so that ARP and ND have to pass as well.
    let forget = || {
        for host in [&operator, &other, ward.lab.router()] {
            host.ip("neigh flush all").unwrap();
        }
    };
    let opens =
        |host: &Host, to: &str, port| host.tcp_connect(to, port, TIMEOUT) == Outcome::Connected;
    let reaches = || {
        let [v4, v6] = router(1);
        forget();
        opens(&operator, &v4, 22) && opens(&operator, &v6, 22) && operator.ping(&v4)
    };
    // The failsafe admits no other port, destination or device.
    let only_that = || {
        let [v4, _] = router(1);
        !opens(&operator, &v4, 23)
            && !opens(&operator, FAR[0], 22)
            && !opens(&other, &router(2)[0], 22)
            && !other.ping(&router(2)[0])
    };
    let lan1 = "  - {interface: lan1, zone: zone-1}\n";
    let (ports, devices) = lists(lan1);
    let strangers = devices.replace(&mac(1), "02:00:00:00:99:99");
    let (tagged, _) = lists("  - {interface: lan1, vlans: [{id: 7, zone: zone-1}]}\n");
    let mut wrong = Vec::new();
    for (what, document) in [
        ("a rule that denies", policy(&ports, &devices, DENY)),
        ("no rule", policy(&ports, &devices, "")),
        ("another's MAC", policy(&ports, &strangers, "")),
        ("tagged only", policy(&tagged, &devices, "")),
        (
            "TC",
            policy(
                &ports.replace("lan1,", "lan1, attach: tc,"),
                &strangers,
                DENY,
            ),
        ),
    ] {
        guard.apply(&document);
        wrong.extend((!reaches() || !only_that()).then_some(what));
    }
    assert_eq!(wrong, [""; 0]);
    let file = ward.lab.dir().join("plan.yaml");
    std::fs::write(&file, policy(&ports, &devices, DENY)).unwrap();
    let plan = guard.ctl.json(&["plan", "-f", file.to_str().unwrap()]);
    assert_eq!(plan.unwrap()["failsafe"], told);

    guard.apply(&policy(&ports, &devices, DENY));
    let answer = guard.ctl.json(&["quarantine", "device-1", "--reason", "x"]);
    let warning = "by the router's failsafe it may still reach the router: tcp/22, icmp/8";
    assert_eq!(answer.unwrap()["warnings"], json!([warning]));
    assert!(reaches() && only_that());
    let explains = |service: &str| {
        let asked = [
            "explain",
            "--from",
            "device:device-1",
            "--to",
            "router",
            service,
        ];
        guard.ctl.run(&asked).unwrap()
    };
    let (spared, cut) = (explains("tcp/22"), explains("tcp/23"));
    assert!(
        spared.code == 0 && spared.stdout.contains("control"),
        "{spared:?}"
    );
    assert!(
        cut.code == 3 && cut.stdout.contains("quarantined"),
        "{cut:?}"
    );

    guard.daemon.kill9().unwrap();
    assert!(reaches() && only_that());

    // It ends when the configuration no longer names it, and only then.
    let text = std::fs::read_to_string(guard.daemon.config()).unwrap();
    std::fs::write(guard.daemon.config(), text.replace(&list, "")).unwrap();
    guard.daemon.restart().unwrap();
    assert_eq!(guard.ctl.json(&["status"]).unwrap()["failsafe"], json!([]));
    assert!(!reaches() && only_that());
}
