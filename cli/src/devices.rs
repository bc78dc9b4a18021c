//! Devices that are not known yet: lists them, and takes them into the document.

use wardline_proto::{
    document::Problem,
    parts::Parts,
    v1::{
        AdoptDeviceRequest, Device, DevicesCsv, ImportDevicesRequest, ListUnknownRequest,
        PlanRequest, Policy, UnknownDevice,
    },
};

use crate::{
    args::{Adopt, Change, Import},
    ask::agreed,
    connect::{LARGEST_MESSAGE, connect},
    document::text_of,
    exit::{Exit, Failure},
    humane::{Clock, time},
    output,
    plan::plan_text,
    policy::{changed, plan_of},
    session::Session,
    table::{cell, filled, judged, table},
};

/// Lists who was seen and is not known.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn unknown(session: &Session) -> Result<Exit, Failure> {
    let list = session
        .ask(ListUnknownRequest {}, async |mut client, it| {
            client.list_unknown(it).await
        })
        .await?;
    let text = |unknown: &[UnknownDevice]| unknown_text(unknown, &Clock::system());
    output::answer(session.format, &list, |list| text(&list.unknown))
}

/// Makes a device of a MAC.
///
/// # Errors
/// The router refuses or does not answer.
pub(crate) async fn adopt(session: &Session, args: Adopt) -> Result<Exit, Failure> {
    let Adopt {
        mac,
        name,
        zone,
        port,
        change: Change { terms, yes },
    } = args;
    let device = Device {
        name: name.clone(),
        zone: zone.clone(),
        macs: vec![with_colons(&mac)],
        port: port.clone(),
        ..Device::default()
    };
    let plan = PlanRequest {
        put: Some(Policy {
            devices: vec![device],
            ..Policy::default()
        }),
        ..PlanRequest::default()
    };
    let asked = agreed(plan_of(session, &Parts::default(), plan), yes).await?;
    let request = AdoptDeviceRequest {
        mac,
        name,
        zone,
        port,
        base: terms.base_or(asked),
        reason: terms.why.reason,
        confirm_within_s: terms.confirm_within.unwrap_or_default(),
    };
    let change = session
        .ask(request, async |mut client, it| {
            client.adopt_device(it).await
        })
        .await?;
    changed(session, &change)
}

/// Puts the devices of a table, or shows what that would change.
///
/// # Errors
/// The file can't be read, a line has a problem, or the router refuses or does not answer.
pub(crate) async fn import(session: &Session, args: Import) -> Result<Exit, Failure> {
    let name = match args.file.to_string_lossy().as_ref() {
        "-" => "standard input".to_owned(),
        name => name.to_owned(),
    };
    let devices = DevicesCsv {
        csv: text_of(&args.file, LARGEST_MESSAGE)?,
        columns: args.map.into_iter().collect(),
        delimiter: args.delimiter,
    };
    let placed = |problem: &Problem| at_line(&name, problem);
    let request = PlanRequest {
        devices: Some(devices.clone()),
        ..PlanRequest::default()
    };
    let plan = session.within(async {
        let client = connect(&session.target).await?;
        let call = async |mut client: crate::connect::Client, it| client.plan(it).await;
        let answer = session.call(client, request, call).await;
        answer.map_err(|status| session.failed(&status, placed))
    });
    if args.plan {
        let plan = plan.await?;
        output::warn(&plan.warnings);
        return output::answer(session.format, &plan, plan_text);
    }
    let Change { terms, yes } = args.change;
    let asked = agreed(plan, yes).await?;
    let request = ImportDevicesRequest {
        devices: Some(devices),
        base: terms.base_or(asked),
        reason: terms.why.reason,
        confirm_within_s: terms.confirm_within.unwrap_or_default(),
    };
    let change = session.within(async {
        let client = connect(&session.target).await?;
        let call = async |mut client: crate::connect::Client, it| client.import_devices(it).await;
        let answer = session.call(client, request, call).await;
        answer.map_err(|status| session.failed(&status, placed))
    });
    changed(session, &change.await?)
}

/// A MAC as a document writes it; what is none stays as it is, and the router says so.
fn with_colons(mac: &str) -> String {
    let digits: Vec<char> = mac.chars().filter(char::is_ascii_hexdigit).collect();
    if digits.len() != 12 {
        return mac.to_owned();
    }
    let octets: Vec<String> = digits.chunks(2).map(|it| it.iter().collect()).collect();
    octets.join(":").to_lowercase()
}

/// A problem of a table, at its line of the file.
fn at_line(file: &str, problem: &Problem) -> Problem {
    let path = match problem.path.strip_prefix("csv:") {
        Some(line) => format!("{file}:{line}"),
        None => problem.path.clone(),
    };
    Problem {
        path,
        message: problem.message.clone(),
    }
}

fn unknown_text(unknown: &[UnknownDevice], clock: &Clock) -> String {
    let rows = unknown.iter().map(|it| {
        let ago = |at| time(at).map(|at| clock.distance(at)).unwrap_or_default();
        let tried = it
            .drops
            .last()
            .map(|last| format!("{} to {}: {}", last.service, last.destination, last.reason));
        let says = [&it.hostname, &it.vendor, &it.vendor_class];
        let says: Vec<&str> = says.into_iter().map(String::as_str).collect();
        let says: Vec<&str> = says.into_iter().filter(|it| !it.is_empty()).collect();
        let vlan = match it.vlan {
            0 => it.port.clone(),
            vlan => format!("{} vlan {vlan}", it.port),
        };
        vec![
            cell(&it.mac),
            cell(vlan),
            cell(&it.zone),
            cell(ago(it.last_seen.as_ref())),
            cell(says.join(", ")),
            cell(it.addresses.join(" ")),
            judged(it.dropped.to_string(), it.dropped == 0),
            cell(tried.unwrap_or_default()),
        ]
    });
    let columns = table(&[
        "MAC",
        "PORT",
        "ZONE",
        "SEEN",
        "SAYS",
        "ADDRESSES",
        "DROPPED>",
        "LAST TRIED",
    ]);
    filled(columns, rows, "unknown devices")
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use wardline_proto::v1::UnknownDrop;

    use super::*;
    use crate::table::uncoloured;

    #[test]
    fn who_is_not_known_is_a_line() {
        let clock = Clock {
            now: Timestamp::constant(1000, 0),
            zone: TimeZone::UTC,
        };
        let unknown = UnknownDevice {
            mac: "02:00:00:00:01:07".to_owned(),
            hostname: "pump\u{1b}".to_owned(),
            vendor_class: "udhcp".to_owned(),
            port: "lan1".to_owned(),
            zone: "pumps".to_owned(),
            vlan: 20,
            last_seen: Some(prost_types::Timestamp {
                seconds: 820,
                nanos: 0,
            }),
            dropped: 3,
            drops: vec![UnknownDrop {
                reason: "unknown_device".to_owned(),
                destination: "10.20.1.1".to_owned(),
                service: "udp/67".to_owned(),
                packets: 3,
            }],
            ..UnknownDevice::default()
        };
        assert_eq!(
            uncoloured(&unknown_text(&[unknown], &clock)),
            "MAC                PORT          ZONE   SEEN    SAYS               ADDRESSES  DROPPED  LAST TRIED\n\
             02:00:00:00:01:07  lan1 vlan 20  pumps  3m ago  pump\\u{1b}, udhcp                   3  \
             udp/67 to 10.20.1.1: unknown_device\n"
        );
    }

    #[test]
    fn a_problem_names_the_line_of_the_file() {
        let problem = |path: &str| Problem {
            path: path.to_owned(),
            message: "x".to_owned(),
        };
        let placed = |path| at_line("devices.csv", &problem(path)).to_string();
        assert_eq!(placed("csv:17"), "devices.csv:17: x");
        assert_eq!(placed("places"), "places: x");
    }
}
