//! The state of the router: status, devices, flows and counters.

use std::{collections::BTreeMap, net::Ipv6Addr};

use serde_json::{Value, json};
use wardline_proto::{
    document::to_value,
    v1::{
        Attached, BrokenPart, DeviceStatus, Failsafe, Flow, GetCountersRequest,
        GetCountersResponse, GetStatusRequest, GetStatusResponse, InterfaceStatus, JournalStatus,
        ListDevicesRequest, ListFlowsRequest, PortStatus, Quarantined, Shut, TableStatus,
    },
};

use crate::{
    args::{Format, Limit},
    exit::{Exit, Failure},
    humane::{Clock, bytes, fill, printable, span, time, word},
    output,
    session::Session,
    table::{cell, filled, judged, table},
};

/// Shows the status.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn status(session: &Session) -> Result<Exit, Failure> {
    let request = GetStatusRequest {};
    let status = session
        .ask(request, async |mut client, it| client.get_status(it).await)
        .await?;
    output::warn(&status.warnings);
    output::answer(session.format, &status, |status| {
        status_text(status, &Clock::system())
    })
}

/// Lists the devices.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn devices(session: &Session) -> Result<Exit, Failure> {
    let request = ListDevicesRequest {};
    let list = session
        .ask(request, async |mut client, it| {
            client.list_devices(it).await
        })
        .await?;
    let text = |devices: &[DeviceStatus]| devices_text(devices, &Clock::system());
    output::answer(session.format, &list, |list| text(&list.devices))
}

/// Lists the live flows.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn flows(session: &Session, args: Limit) -> Result<Exit, Failure> {
    let request = ListFlowsRequest {
        limit: args.limit.unwrap_or_default(),
    };
    let mut stream = session
        .ask(request, async |mut client, it| client.list_flows(it).await)
        .await?;
    let mut flows = Vec::new();
    let all = async {
        while let Some(flow) = stream.message().await? {
            flows.push(flow);
        }
        Ok(())
    };
    session.within(all).await?;
    match session.format {
        Format::Table => output::styled(&flows_text(&flows)),
        format @ (Format::Json | Format::Yaml | Format::Csv) => {
            let flows: Vec<Value> = flows.iter().map(to_value).collect();
            output::value(format, &json!({ "flows": flows }))
        }
    }
}

/// Shows packets and bytes by reason and by rule.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn counters(session: &Session) -> Result<Exit, Failure> {
    let request = GetCountersRequest {};
    let counters = session
        .ask(request, async |mut client, it| {
            client.get_counters(it).await
        })
        .await?;
    output::answer(session.format, &counters, counters_text)
}

/// The kernel's tables and how full each is.
pub(crate) fn tables_text(tables: &[TableStatus]) -> String {
    let rows = tables.iter().map(|it| {
        // Above this fill, the next learned addresses or flows may find no room.
        let good = u128::from(it.used) * 10 < u128::from(it.max) * 9;
        vec![
            cell(&it.name),
            cell(it.used.to_string()),
            cell(it.max.to_string()),
            judged(fill(it.used, it.max), good),
        ]
    });
    filled(table(&["TABLE", "USED>", "MAX>", "FILL>"]), rows, "tables")
}

fn status_text(status: &GetStatusResponse, clock: &Clock) -> String {
    let pending = status.pending.as_ref().map(|pending| {
        let by = time(pending.confirm_by.as_ref());
        let back = by
            .map(|by| format!(", taken back {}", clock.distance(by)))
            .unwrap_or_default();
        format!("{} waits for its confirmation{back}", pending.revision)
    });
    let revision = match status.revision {
        0 if status.broken.iter().any(|it| it.name == "policy") => {
            "none: the last policy in force is lost".to_owned()
        }
        0 => "none: no policy was applied yet, nothing is attached".to_owned(),
        revision => revision.to_string(),
    };
    let mut text = format!(
        "router    {}\nversion   {}\nrevision  {revision}\n",
        printable(&status.router),
        printable(&status.version)
    );
    text += &pending
        .map(|pending| format!("pending   {pending}\n"))
        .unwrap_or_default();
    text += &cut_off_text(status, clock);
    if !status.clock_doubt.is_empty() {
        text += &format!("clock     {}\n", printable(&status.clock_doubt));
    }
    text += &failsafe_text(&status.failsafe);
    text += &broken_text(&status.broken, clock);
    text += &exposed_text(&status.interfaces);
    text += &status
        .journal
        .as_ref()
        .map(|journal| journal_text(journal, clock))
        .unwrap_or_default();
    if status.revision == 0 && status.ports.is_empty() {
        return text;
    }
    let rows = status.ports.iter().map(|it| {
        let mut attached = word(it.attached().as_str_name(), "ATTACHED_");
        if it.fast_forward {
            attached += ", fast-forward";
        }
        let guarded = matches!(it.attached(), Attached::Xdp | Attached::Tc);
        match it.shut() {
            Shut::Dropped => attached += ", shut",
            Shut::Down => attached += ", taken down",
            Shut::None | Shut::Unspecified => {}
        }
        if it.quarantined {
            attached += ", quarantined";
        }
        vec![
            cell(&it.interface),
            cell(&it.zone),
            judged(attached, guarded && !it.quarantined),
            cell(&it.reason),
        ]
    });
    text += "\n";
    text += &filled(
        table(&["PORT", "ZONE", "ATTACHED", "REASON"]),
        rows,
        "ports",
    );
    text += &port_warnings(&status.ports);
    if !status.grants.is_empty() {
        let rows = status.grants.iter().map(|it| {
            let ends = time(it.expires.as_ref()).map(|at| clock.distance(at));
            vec![
                cell(&it.name),
                cell(it.from.join(", ")),
                cell(it.to.join(", ")),
                cell(it.services.join(", ")),
                cell(ends.unwrap_or_default()),
            ]
        });
        text += "\n";
        text += &filled(
            table(&["GRANT", "FROM", "TO", "SERVICES", "ENDS"]),
            rows,
            "grants",
        );
    }
    text += "\n";
    text += &tables_text(&status.tables);
    text
}

/// How full the journal of events is, one line.
fn journal_text(journal: &JournalStatus, clock: &Clock) -> String {
    let oldest = time(journal.oldest.as_ref()).map(|at| format!(" since {}", clock.local(at)));
    let mut text = format!(
        "journal   {} events{}, {} of {}, {} days",
        journal.events,
        oldest.unwrap_or_default(),
        bytes(journal.bytes),
        bytes(journal.max_bytes),
        journal.days
    );
    if journal.forgotten != 0 {
        text += &format!("; {} had to go early, no room", journal.forgotten);
    }
    if journal.lost != 0 {
        text += &format!("; {} were not recorded", journal.lost);
    }
    text + "\n"
}

/// Who is in quarantine, why, and by whom: a line for each of the first.
fn cut_off_text(status: &GetStatusResponse, clock: &Clock) -> String {
    /// Most lines; the other formats have all.
    const TOLD: usize = 20;
    let mut text = String::new();
    for held in status.held.iter().take(TOLD) {
        let name = held.quarantine.as_ref().map_or("", |it| it.name.as_str());
        let whom = match (held.device.as_str(), held.port.as_str()) {
            ("", "") => {
                let known: Vec<&String> = held.macs.iter().chain(&held.addresses).collect();
                let known: Vec<&str> = known.iter().map(|it| it.as_str()).collect();
                format!("{} (was {name}; no device has it)", known.join(" "))
            }
            ("", port) => format!("port {port}"),
            (device, _) => device.to_owned(),
        };
        let why = held.quarantine.as_ref().map(|it| why_text(it, clock));
        let line = format!("cut off   {whom}{}", why.unwrap_or_default());
        text += &(printable(&line) + "\n");
    }
    if status.held.len() > TOLD {
        text += &format!("cut off   and {} more\n", status.held.len() - TOLD);
    }
    text
}

/// Why somebody is in quarantine and who put them there, after a comma.
fn why_text(quarantined: &Quarantined, clock: &Clock) -> String {
    let mut text = String::new();
    if let Some(since) = time(quarantined.since.as_ref()) {
        text += &format!(", {}", clock.distance(since));
    }
    if !quarantined.actor.is_empty() {
        text += &format!(" by {}", quarantined.actor);
    }
    if !quarantined.reason.is_empty() {
        text += &format!(": {}", quarantined.reason);
    }
    text
}

/// The interfaces that are not guarded and expose something, one line.
fn exposed_text(interfaces: &[InterfaceStatus]) -> String {
    let exposed = interfaces.iter().filter(|it| !it.exposes.is_empty());
    let names: Vec<&str> = exposed.map(|it| it.name.as_str()).collect();
    if names.is_empty() {
        return String::new();
    }
    let names = few(&names);
    format!("exposed   {}; see wardctl interfaces\n", printable(&names))
}

/// The first names, and how many more there are.
fn few(names: &[&str]) -> String {
    /// Most names of one line; the other formats have all.
    const NAMED: usize = 8;
    let mut text = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        text += &format!(" and {} more", names.len() - NAMED);
    }
    text
}

/// What is said of ports, each text once with the ports that it is said of.
fn port_warnings(ports: &[PortStatus]) -> String {
    let mut said: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for port in ports {
        for text in &port.warnings {
            said.entry(text).or_default().push(&port.interface);
        }
    }
    let lines = said
        .into_iter()
        .map(|(text, ports)| format!("\n{}: {}\n", printable(&few(&ports)), printable(text)));
    lines.collect()
}

/// The parts that do not work, a line for each.
fn broken_text(broken: &[BrokenPart], clock: &Clock) -> String {
    let line = |it: &BrokenPart| {
        let since = time(it.since.as_ref()).map(|at| clock.distance(at));
        let next = time(it.next_try.as_ref()).map(|at| clock.distance(at));
        let next = next.map(|next| format!(", tried again {next}"));
        let (since, next) = (since.unwrap_or_default(), next.unwrap_or_default());
        printable(&format!(
            "broken    {}, {since}{next}: {}",
            it.name, it.error
        )) + "\n"
    };
    broken.iter().map(line).collect()
}

/// The hosts that may always reach the router, a line for each entry.
pub(crate) fn failsafe_text(failsafe: &[Failsafe]) -> String {
    let line = |it: &Failsafe| {
        let (from, services) = (it.from.join(", "), it.services.join(", "));
        printable(&format!("failsafe  {from} → router  {services}")) + "\n"
    };
    failsafe.iter().map(line).collect()
}

fn devices_text(devices: &[DeviceStatus], clock: &Clock) -> String {
    let rows = devices.iter().map(|it| {
        let seen = time(it.last_seen.as_ref()).map(|time| clock.distance(time));
        vec![
            if it.quarantined {
                judged(&it.name, false)
            } else {
                cell(&it.name)
            },
            cell(&it.zone),
            cell(if it.port.is_empty() { "-" } else { &it.port }),
            cell(seen.unwrap_or_else(|| "never".to_owned())),
            if it.quarantined {
                let why = it.quarantine.as_ref().map(|it| why_text(it, clock));
                judged(format!("quarantined{}", why.unwrap_or_default()), false)
            } else {
                cell("")
            },
            cell(it.addresses.join(" ")),
            cell(it.macs.join(" ")),
        ]
    });
    let columns = table(&[
        "DEVICE",
        "ZONE",
        "PORT",
        "SEEN",
        "STATE",
        "ADDRESSES",
        "MACS",
    ]);
    filled(columns, rows, "devices")
}

fn flows_text(flows: &[Flow]) -> String {
    // First from the opener, then to it.
    let both = |values: &[u64], show: fn(u64) -> String| {
        values
            .iter()
            .map(|value| show(*value))
            .collect::<Vec<_>>()
            .join(" / ")
    };
    let rows = flows.iter().map(|it| {
        let ports = !it.protocol.starts_with("icmp");
        vec![
            cell(&it.protocol),
            cell(socket(&it.source, ports.then_some(it.source_port))),
            cell(socket(
                &it.destination,
                ports.then_some(it.destination_port),
            )),
            cell(&it.state),
            cell(span(it.age_s)),
            cell(both(&it.packets, |count| count.to_string())),
            cell(both(&it.bytes, bytes)),
            cell(&it.rule),
        ]
    });
    let columns = table(&[
        "PROTOCOL",
        "SOURCE",
        "DESTINATION",
        "STATE",
        "AGE>",
        "PACKETS>",
        "BYTES>",
        "RULE",
    ]);
    filled(columns, rows, "flows")
}

/// An address with its port, if the protocol has any.
fn socket(address: &str, port: Option<u32>) -> String {
    match port {
        None | Some(0) => address.to_owned(),
        Some(port) if address.parse::<Ipv6Addr>().is_ok() => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
    }
}

fn counters_text(counters: &GetCountersResponse) -> String {
    let reasons = counters.reasons.iter().map(|it| {
        let reason = word(it.reason().as_str_name(), "REASON_");
        vec![
            cell(reason),
            cell(it.packets.to_string()),
            cell(bytes(it.bytes)),
        ]
    });
    let rules = counters.rules.iter().map(|it| {
        vec![
            cell(&it.rule),
            cell(it.packets.to_string()),
            cell(bytes(it.bytes)),
        ]
    });
    let mut text = filled(
        table(&["REASON", "PACKETS>", "BYTES>"]),
        reasons,
        "packets yet",
    );
    text += "\n";
    text += &filled(table(&["RULE", "PACKETS>", "BYTES>"]), rules, "rules");
    if counters.forwarded > 0 {
        text += &format!(
            "\n{} packets were forwarded in the driver\n",
            counters.forwarded
        );
    }
    if counters.lost_events > 0 {
        text += &format!("\n{} events were lost\n", counters.lost_events);
    }
    text
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use wardline_proto::v1::{
        GrantStatus, Held, Pending, PortStatus, Reason, ReasonCounter, RuleCounter,
    };

    use super::*;
    use crate::table::uncoloured;

    fn clock() -> Clock {
        Clock {
            now: Timestamp::constant(1000, 0),
            zone: TimeZone::UTC,
        }
    }

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn status_is_laid_out() {
        let status = GetStatusResponse {
            router: "edge-ward-3".to_owned(),
            version: "0.1.0".to_owned(),
            revision: 7,
            pending: Some(Pending {
                revision: 7,
                confirm_by: at(1045),
            }),
            ports: vec![PortStatus {
                interface: "lan1".to_owned(),
                zone: "pumps".to_owned(),
                attached: Attached::Tc.into(),
                reason: "no native XDP".to_owned(),
                ifindex: 3,
                fast_forward: false,
                quarantined: true,
                warnings: vec![],
                shut: Shut::None.into(),
            }],
            tables: vec![TableStatus {
                name: "flows".to_owned(),
                used: 12,
                max: 262_144,
            }],
            warnings: vec![],
            grants: vec![GrantStatus {
                name: "fix".to_owned(),
                from: vec!["any".to_owned()],
                to: vec!["device:ehr".to_owned()],
                services: vec!["tcp/22".to_owned()],
                expires: at(4600),
            }],
            quarantined: vec!["camera-1".to_owned()],
            quarantined_ports: vec!["lan1".to_owned(), "lan7".to_owned()],
            failsafe: vec![Failsafe {
                from: vec!["10.0.9.5/32".to_owned(), "fd00::/64".to_owned()],
                services: vec!["tcp/22".to_owned()],
            }],
            broken: vec![BrokenPart {
                name: "listener".to_owned(),
                since: at(940),
                error: "no such address".to_owned(),
                next_try: at(1004),
            }],
            unrecorded: vec![],
            clock_doubt: String::new(),
            interfaces: vec![exposing("wan0")],
            journal: Some(JournalStatus {
                events: 1200,
                oldest: at(0),
                bytes: 1 << 20,
                max_bytes: 256 << 20,
                days: 30,
                lost: 0,
                forgotten: 7,
            }),
            held: vec![
                Held {
                    device: "camera-1".to_owned(),
                    quarantine: Some(quarantined()),
                    ..Held::default()
                },
                Held {
                    port: "lan1".to_owned(),
                    quarantine: Some(Quarantined::default()),
                    ..Held::default()
                },
                Held {
                    macs: vec!["02:00:00:00:01:01".to_owned()],
                    quarantine: Some(quarantined()),
                    ..Held::default()
                },
            ],
        };
        assert_eq!(
            uncoloured(&status_text(&status, &clock())),
            "router    edge-ward-3\n\
             version   0.1.0\n\
             revision  7\n\
             pending   7 waits for its confirmation, taken back in 45s\n\
             cut off   camera-1, 1m ago by uid:0: scans\n\
             cut off   port lan1\n\
             cut off   02:00:00:00:01:01 (was camera-1; no device has it), 1m ago by uid:0: scans\n\
             failsafe  10.0.9.5/32, fd00::/64 → router  tcp/22\n\
             broken    listener, 1m ago, tried again in 4s: no such address\n\
             exposed   wan0; see wardctl interfaces\n\
             journal   1200 events since 1970-01-01 00:00:00, 1.0 MiB of 256.0 MiB, 30 days; 7 had to \
             go early, no room\n\n\
             PORT  ZONE   ATTACHED         REASON\n\
             lan1  pumps  tc, quarantined  no native XDP\n\n\
             GRANT  FROM  TO          SERVICES  ENDS\n\
             fix    any   device:ehr  tcp/22    in 1h\n\n\
             TABLE  USED     MAX  FILL\n\
             flows    12  262144   <1%\n"
        );
        assert_eq!(
            status_text(&GetStatusResponse::default(), &clock()),
            "router    \nversion   \n\
             revision  none: no policy was applied yet, nothing is attached\n"
        );
    }

    fn quarantined() -> Quarantined {
        Quarantined {
            actor: "uid:0".to_owned(),
            reason: "scans".to_owned(),
            since: at(940),
            name: "camera-1".to_owned(),
        }
    }

    fn exposing(name: &str) -> InterfaceStatus {
        InterfaceStatus {
            name: name.to_owned(),
            exposes: vec!["what is open".to_owned()],
            ..Default::default()
        }
    }

    #[test]
    fn interfaces_that_expose_something_are_counted() {
        let guarded = InterfaceStatus::default();
        assert_eq!(exposed_text(&[guarded]), "");
        let many: Vec<_> = (1..=20).map(|it| exposing(&format!("if{it}"))).collect();
        assert_eq!(
            exposed_text(&many),
            "exposed   if1, if2, if3, if4, if5, if6, if7, if8 and 12 more; see wardctl interfaces\n"
        );
    }

    #[test]
    fn a_warning_is_said_once_for_all_its_ports() {
        let port = |number: u32, warnings: &[&str]| PortStatus {
            interface: format!("lan{number}"),
            warnings: warnings.iter().map(|&it| it.to_owned()).collect(),
            ..Default::default()
        };
        let few = [port(1, &["one"]), port(2, &[]), port(3, &["two", "one"])];
        assert_eq!(port_warnings(&few), "\nlan1, lan3: one\n\nlan3: two\n");
        let many: Vec<_> = (1..=20).map(|number| port(number, &["one"])).collect();
        assert_eq!(
            port_warnings(&many),
            "\nlan1, lan2, lan3, lan4, lan5, lan6, lan7, lan8 and 12 more: one\n"
        );
        assert_eq!(port_warnings(&[port(1, &[])]), "");
    }

    #[test]
    fn devices_tell_where_they_were_seen() {
        let seen = DeviceStatus {
            name: "pump-1".to_owned(),
            zone: "pumps".to_owned(),
            macs: vec!["02:00:00:00:01:01".to_owned()],
            addresses: vec!["10.20.1.11".to_owned(), "fd00::11".to_owned()],
            port: "lan1".to_owned(),
            last_seen: at(820),
            quarantined: true,
            quarantine: Some(quarantined()),
            ..Default::default()
        };
        let unseen = DeviceStatus {
            name: "ehr".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            uncoloured(&devices_text(&[seen, unseen], &clock())),
            "DEVICE  ZONE   PORT  SEEN    STATE                                ADDRESSES            MACS\n\
             pump-1  pumps  lan1  3m ago  quarantined, 1m ago by uid:0: scans  10.20.1.11 fd00::11  02:00:00:00:01:01\n\
             ehr            -     never\n"
        );
    }

    #[test]
    fn flows_show_both_directions() {
        let flow = Flow {
            source: "fd00::11".to_owned(),
            destination: "10.20.9.5".to_owned(),
            protocol: "tcp".to_owned(),
            source_port: 50_000,
            destination_port: 2575,
            rule: "r".to_owned(),
            state: "established".to_owned(),
            age_s: 65,
            packets: vec![12, 10],
            bytes: vec![2048, 900],
        };
        assert_eq!(
            uncoloured(&flows_text(&[flow])),
            "PROTOCOL  SOURCE            DESTINATION     STATE        AGE  PACKETS            BYTES  RULE\n\
             tcp       [fd00::11]:50000  10.20.9.5:2575  established   1m  12 / 10  2.0 KiB / 900 B  r\n"
        );
    }

    #[test]
    fn counters_are_by_reason_and_by_rule() {
        let counters = GetCountersResponse {
            reasons: vec![ReasonCounter {
                reason: Reason::BadTcpFlags.into(),
                packets: 3,
                bytes: 180,
            }],
            rules: vec![RuleCounter {
                rule: "r".to_owned(),
                packets: 0,
                bytes: 0,
            }],
            lost_events: 2,
            forwarded: 7,
        };
        assert_eq!(
            uncoloured(&counters_text(&counters)),
            "REASON         PACKETS  BYTES\n\
             bad_tcp_flags        3  180 B\n\n\
             RULE  PACKETS  BYTES\n\
             r           0    0 B\n\n\
             7 packets were forwarded in the driver\n\n\
             2 events were lost\n"
        );
    }
}
