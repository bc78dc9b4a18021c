//! Plans say what a document would do, change nothing, and then come true.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wardline_tests::{
    Outcome, TIMEOUT, eventually,
    ward::{FAR, Guard, PATIENCE, Ward, mac, policy, v4, zone},
};

/// The daemon's plan for a document, which must change nothing.
fn plan(ward: &Ward, guard: &Guard, document: &str) -> Value {
    let file = ward.lab.dir().join("plan.yaml");
    std::fs::write(&file, document).unwrap();
    let revision = guard.ctl.json(&["status"]).unwrap()["revision"].clone();
    let plan = guard
        .ctl
        .json(&["plan", "-f", file.to_str().unwrap()])
        .unwrap();
    assert_eq!(plan["base"], revision);
    assert_eq!(guard.ctl.json(&["status"]).unwrap()["revision"], revision);
    plan
}

/// Some fields of each of a plan's lines.
fn lines(plan: &Value, list: &str, fields: &[&str]) -> Vec<Value> {
    let lines = plan[list].as_array().unwrap();
    let line = |it: &Value| fields.iter().map(|field| it[*field].clone()).collect();
    lines.iter().map(line).collect()
}

#[test]
fn a_plan_tells_what_opens_closes_and_is_cut() {
    let ward = Ward::new("plan");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let _far = ward.far.tcp_serve(7).unwrap();
    let _router = ward.lab.router().tcp_serve(22).unwrap();
    let guard = Guard::start(&ward.lab, "");
    let operator = "  - {name: operator, from: [device:device-1], to: [router], \
                    services: [tcp/22], action: allow}\n";
    let zones = [zone(1, "", "")];
    guard.apply(&(policy(&zones, "tcp/7") + operator));
    let mut far = device.session(FAR[0], 7).unwrap();
    let mut router = device.session("10.20.1.1", 22).unwrap();
    assert!(far.echo(b"x") && router.echo(b"x"));

    let same = plan(&ward, &guard, &(policy(&zones, "tcp/7") + operator));
    for list in [
        "changes",
        "dangers",
        "reach",
        "cut",
        "idle",
        "observed",
        "empty_zones",
    ] {
        assert_eq!(same[list], json!([]), "{list}");
    }

    // Another service, no rule for the router, a redundant rule, and a rule for an empty zone.
    let next = policy(&zones, "tcp/9").replace("ports:\n", "  - {name: void}\nports:\n")
        + "  - {name: narrow, from: [device:device-1], to: [\"cidr:198.51.100.7/32\"], \
           services: [tcp/9], action: allow}\n\
           \x20 - {name: ghost, from: [zone:void], to: [any], services: [tcp/9], action: allow}\n";
    let told = plan(&ward, &guard, &next);
    let first = told["dangers"][0].as_str().unwrap();
    assert!(
        first
            .starts_with("cuts 1 live flow with the router itself, such as 10.20.1.11 → 10.20.1.1"),
        "{told:#}"
    );
    assert_eq!(told["flows_cut"], 2);
    let cut = |port: u16, to: &str| json!([v4(1), to, port, "no_rule"]);
    let cuts: Vec<Value> = told["cut"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let flow = &it["flow"];
            json!([
                flow["source"],
                flow["destination"],
                flow["destination_port"],
                it["reason"]
            ])
        })
        .collect();
    assert_eq!(cuts, [cut(22, "10.20.1.1"), cut(7, FAR[0])]);
    let reach = lines(&told, "reach", &["reachable", "from", "to", "services"]);
    for expected in [
        json!([false, "device:device-1", "router", ["tcp/22"]]),
        json!([false, "any", "cidr:198.51.100.0/24", ["tcp/7"]]),
        json!([true, "any", "cidr:198.51.100.0/24", ["tcp/9"]]),
    ] {
        assert!(reach.contains(&expected), "{expected} is not in {reach:#?}");
    }
    let idle = lines(&told, "idle", &["rule", "matches", "covered_by"]);
    assert_eq!(
        idle,
        [
            json!(["ghost", false, []]),
            json!(["narrow", true, ["needed"]])
        ]
    );
    assert_eq!(told["empty_zones"], json!(["void"]));
    // The plan itself cut nothing; the document then cuts what the plan said.
    assert!(far.echo(b"x") && router.echo(b"x"));
    guard.apply(&next);
    assert!(!far.echo(b"x") && !router.echo(b"x"));

    // Removing a device cuts its flows, and a document beyond the limits is refused with numbers.
    let gone = policy(&zones, "tcp/9").replace(&mac(1), "02:00:00:00:77:77");
    let _nine = ward.far.tcp_serve(9).unwrap();
    let mut nine = device.session(FAR[0], 9).unwrap();
    assert!(nine.echo(b"x"));
    let told = plan(&ward, &guard, &gone);
    assert_eq!(
        lines(&told, "cut", &["reason"]),
        [json!(["unknown_device"])]
    );
}

#[test]
fn a_plan_that_does_not_fit_is_refused_with_numbers() {
    let ward = Ward::new("fits");
    let guard = Guard::start(&ward.lab, "[limits]\ndevices = 2\n");
    let zones = [1, 2, 3].map(|net| zone(net, "", ""));
    let file = ward.lab.dir().join("plan.yaml");
    std::fs::write(&file, policy(&zones, "tcp/7")).unwrap();
    for command in ["plan", "apply"] {
        let answer = guard
            .ctl
            .run(&[command, "-f", file.to_str().unwrap()])
            .unwrap();
        assert_eq!(answer.code, 4, "{answer:?}");
        assert!(answer.stderr.contains("devices: 3 devices"), "{answer:?}");
        assert!(answer.stderr.contains('2'), "{answer:?}");
    }
}

#[test]
fn what_was_observed_is_what_enforcing_would_drop() {
    let ward = Ward::new("observed");
    let device = ward.device(1);
    ward.lab.settle().unwrap();
    let _far = [7, 8, 9].map(|port| ward.far.tcp_serve(port).unwrap());
    let guard = Guard::start(&ward.lab, "");
    let observing = policy(&[zone(1, ", mode: observe", "")], "tcp/7");
    let enforcing = policy(&[zone(1, "", "")], "tcp/7");
    guard.apply(&observing);
    for port in [7, 8, 9] {
        let outcome = device.tcp_connect(FAR[0], port, TIMEOUT);
        assert_eq!(outcome, Outcome::Connected);
    }
    let fields = ["device", "source", "destination", "service", "reason"];
    let line = |port: u16| {
        let service = format!("tcp/{port}");
        json!(["device-1", v4(1), FAR[0], service, "no_rule"])
    };
    let observed = |document: &str| {
        let mut all = lines(&plan(&ward, &guard, document), "observed", &fields);
        all.sort_by_key(ToString::to_string);
        all
    };
    // Events take a moment to arrive.
    assert!(
        eventually(PATIENCE, || observed(&enforcing) == [line(8), line(9)]),
        "{:#?}",
        observed(&enforcing)
    );
    // Packets that the next document allows are not listed, nor any while it observes.
    assert_eq!(
        observed(&enforcing.replace("[tcp/7]", "[tcp/7, tcp/8]")),
        [line(9)]
    );
    assert_eq!(observed(&observing), [json!(null); 0]);
    let dangers = plan(&ward, &guard, &enforcing)["dangers"].to_string();
    assert!(
        dangers.contains("drops from now on what was observed: 2 kinds"),
        "{dangers}"
    );
    // Of more than there is room for, it tells how many.
    for port in 1000..1150 {
        device.udp_send(FAR[0], port, b"x").unwrap();
    }
    let told = || {
        let plan = plan(&ward, &guard, &enforcing);
        let danger = plan["dangers"].to_string().contains("152 kinds of traffic");
        let listed = plan["observed"].as_array().map(Vec::len);
        danger && listed == Some(100) && plan["more_observed"] == 52
    };
    assert!(eventually(PATIENCE, told), "{:#?}", observed(&enforcing));
    guard.apply(&enforcing);
    assert_ne!(device.tcp_connect(FAR[0], 8, TIMEOUT), Outcome::Connected);
    assert_eq!(device.tcp_connect(FAR[0], 7, TIMEOUT), Outcome::Connected);
}

#[test]
fn a_plan_holds_up_no_quarantine() {
    let ward = Ward::new("beside");
    let _device = ward.device(1);
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let file = ward.lab.dir().join("large.yaml");
    std::fs::write(&file, large()).unwrap();

    let ended = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let plan = threads.spawn(|| {
            let begun = Instant::now();
            let plan = guard.ctl.run(&["plan", "-f", file.to_str().unwrap()]);
            ended.store(true, Ordering::Relaxed);
            plan.unwrap().ok().unwrap();
            begun.elapsed()
        });
        let mut slowest = Duration::ZERO;
        while !ended.load(Ordering::Relaxed) {
            slowest = slowest.max(quarantine(&guard));
        }
        // On one thread with the plan, one of these calls would wait for nearly all of it.
        let planned = plan.join().unwrap();
        assert!(slowest < planned / 2, "{slowest:?} beside {planned:?}");
    });
}

#[test]
fn a_plan_ends_when_its_client_leaves() {
    let ward = Ward::new("left");
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    guard.apply(&policy(&[zone(1, "", "")], "tcp/7"));
    let (file, small) = (ward.lab.dir().join("worst"), ward.lab.dir().join("small"));
    std::fs::write(&file, worst()).unwrap();
    std::fs::write(&small, policy(&[zone(1, "", "")], "tcp/8")).unwrap();
    let begin = || Leaver::plan(&guard, &file);

    // As many as there are places.
    let mut clients = [begin(), begin()];
    let working = || reading(&guard) == clients.len();
    assert!(eventually(PATIENCE, working), "the plans do not begin");
    for client in &mut clients {
        assert!(client.is_there());
        client.leave();
    }
    let ended = || reading(&guard) == 0;
    assert!(eventually(PATIENCE, ended), "a plan goes on for nobody");
    let small = ["plan", "-f", small.to_str().unwrap()];
    guard.ctl.run(&small).unwrap().ok().unwrap();
}

/// Prints how long changes take beside eight of the worst plans. `cargo xtask long` checks what is promised.
#[test]
fn many_of_the_worst_plans_delay_no_change() {
    let ward = Ward::new("worst");
    let _device = ward.device(1);
    ward.lab.settle().unwrap();
    let guard = Guard::start(&ward.lab, "");
    let zones = [zone(1, "", "")];
    guard.apply(&policy(&zones, "tcp/7"));
    let (file, next) = (ward.lab.dir().join("worst"), ward.lab.dir().join("next"));
    std::fs::write(&file, worst()).unwrap();
    std::fs::write(&next, policy(&zones, "tcp/8")).unwrap();
    let alone = slowest_quarantine(&guard);
    let mut clients: Vec<Leaver> = (0..8).map(|_| Leaver::plan(&guard, &file)).collect();
    assert!(eventually(PATIENCE, || reading(&guard) != 0));

    let slowest = slowest_quarantine(&guard);
    println!("a quarantine or release took at most {slowest:?}, and {alone:?} without plans");

    clients.retain_mut(Leaver::is_there);
    let waiting = clients.len();
    println!("{waiting} plans were still wanted");
    assert_ne!(waiting, 0, "nothing was tried");

    // No more than two are made at the same time, and one client may not have many calls open: `status` is
    // one, too. The call of a client that leaves ends a moment later.
    clients.truncate(2);
    let answers = || guard.ctl.json(&["status"]).is_ok();
    assert!(
        eventually(PATIENCE, answers),
        "the calls of who has left go on"
    );
    let late = {
        let path = next.to_str().unwrap();
        let apply = ["apply", "-f", path, "--confirm-within", "2s"];
        let revision = |guard: &Guard| guard.ctl.json(&["status"]).unwrap()["revision"].clone();
        let before = revision(&guard);
        guard.ctl.run(&apply).unwrap().ok().unwrap();
        let begun = Instant::now();
        assert_ne!(revision(&guard), before);
        assert!(eventually(PATIENCE, || guard
            .ctl
            .json(&["status"])
            .unwrap()["pending"]
            .is_null()));
        begun.elapsed().saturating_sub(Duration::from_secs(2))
    };
    println!("an unconfirmed change was taken back {late:?} after its time");
    if std::env::var_os("WARDLINE_LONG").is_some() {
        assert!(
            slowest.saturating_sub(alone) < Duration::from_millis(50),
            "{slowest:?}"
        );
        assert!(late < Duration::from_secs(1), "{late:?}");
    }
}

/// The longest of ten quarantines and releases.
fn slowest_quarantine(guard: &Guard) -> Duration {
    (0..10).map(|_| quarantine(guard)).max().unwrap()
}

/// How long a quarantine or its release takes, whichever is longer, with the start of the client.
fn quarantine(guard: &Guard) -> Duration {
    let calls = [
        &["quarantine", "device-1", "--reason", "odd"][..],
        &["release", "device-1"],
    ];
    let times = calls.map(|call| {
        let begun = Instant::now();
        guard.ctl.run(call).unwrap().ok().unwrap();
        begun.elapsed()
    });
    times.into_iter().max().unwrap()
}

/// A client that asks for a plan and leaves before it has the answer.
struct Leaver(Child);

impl Leaver {
    fn plan(guard: &Guard, file: &Path) -> Self {
        let mut command = Command::new(guard.ctl.binary());
        command.args(["--server", guard.ctl.server(), "plan", "-f"]);
        command
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn is_there(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    fn leave(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

impl Drop for Leaver {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How many plans the daemon works on: each has a thread.
fn reading(guard: &Guard) -> usize {
    let tasks = format!("/proc/{}/task", guard.daemon.pid().unwrap());
    let names = std::fs::read_dir(tasks).unwrap().map(|task| {
        // A thread may end meanwhile.
        std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
    });
    names.filter(|name| name.trim_end() == "reading").count()
}

/// Rules that deny a part of what others allow, for every pair of hundreds of addresses: each pair is told
/// with all its exceptions.
fn worst() -> String {
    let mut text = "version: 1\nzones: [{name: z, subnets: [10.77.0.0/16]}]\nrules:\n".to_owned();
    let ends = |net: u16| {
        let ends = (0..200).map(|at| format!("'cidr:10.77.{}.{}/32'", net + at / 200, at % 200));
        ends.collect::<Vec<_>>().join(", ")
    };
    let (from, to) = (ends(0), ends(2));
    for at in 0..40 {
        let action = if at % 2 == 0 { "allow" } else { "deny" };
        text += &format!(
            "  - {{name: r{at}, from: [{from}], to: [{to}], services: [tcp/{}], action: {action}}}\n",
            at / 2 * 3 % 40 + 1
        );
    }
    text
}

/// Two hundred zones, and few rules between very many pairs of them: quick to read, slow to plan.
fn large() -> String {
    let mut text = "version: 1\nzones:\n".to_owned();
    for at in 0..200 {
        text += &format!("  - {{name: z{at}, subnets: [10.77.{at}.0/24]}}\n");
    }
    text += "rules:\n";
    let zones: Vec<_> = (0..200).map(|at| format!("'zone:z{at}'")).collect();
    for at in 0..20 {
        let (from, to) = (zones.join(", "), zones[at % 10 * 20..][..20].join(", "));
        text += &format!(
            "  - {{name: r{at}, from: [{from}], to: [{to}], services: [tcp/{}], action: allow}}\n",
            at + 1
        );
    }
    text
}
