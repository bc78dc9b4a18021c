//! Drops with their reason, and the passes that a rule logs, as they happen.

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use tokio::signal;
use wardline_proto::{
    time::to_proto,
    v1::{Event, Verdict, WatchEventsRequest},
};

use crate::{
    args::{Events, Moment},
    exit::{Exit, Failure},
    humane::{Clock, printable, time, word},
    output,
    session::Session,
};

/// Prints the kept events and, if asked, further ones until interrupted.
///
/// # Errors
/// The router refuses, does not answer, or goes away.
pub(crate) async fn events(session: &Session, args: Events) -> Result<Exit, Failure> {
    let follow = args.follow;
    let request = request(args);
    if follow {
        tokio::select! {
            ended = print(session, request) => ended,
            _ = signal::ctrl_c() => Ok(Exit::Done),
        }
    } else {
        session.within(print(session, request)).await
    }
}

fn request(args: Events) -> WatchEventsRequest {
    let (since_s, since) = match args.since {
        None => (0, None),
        Some(Moment::Ago(seconds)) => (seconds, None),
        Some(Moment::At(time)) => (0, Some(to_proto(time))),
    };
    let until = args
        .until
        .map(|it| to_proto(it.seen_from(Timestamp::now())));
    WatchEventsRequest {
        since_s,
        follow: args.follow,
        since,
        until,
        devices: args.devices,
        zones: args.zones,
        reasons: args.reasons.into_iter().map(Into::into).collect(),
        rules: args.rules,
        services: args.services,
        peers: args.peers,
        interfaces: args.interfaces,
        verdicts: args.verdicts.into_iter().map(Into::into).collect(),
        limit: args.limit.unwrap_or_default(),
    }
}

async fn print(session: &Session, request: WatchEventsRequest) -> Result<Exit, Failure> {
    let clock = Clock::system();
    let mut stream = session
        .watch(request, async |mut client, it| {
            client.watch_events(it).await
        })
        .await?;
    while let Some(event) = stream.message().await? {
        let line = |event: &Event| event_text(event, &clock);
        if output::entry(session.format, &event, line)?.is_break() {
            break;
        }
    }
    Ok(Exit::Done)
}

fn event_text(event: &Event, clock: &Clock) -> String {
    let (colour, verdict) = match event.verdict() {
        Verdict::Pass => (AnsiColor::Green, "pass"),
        Verdict::Drop | Verdict::Unspecified => (AnsiColor::Red, "drop"),
        Verdict::None => (AnsiColor::Yellow, "none"),
    };
    let style = colour.on_default();
    let dim = Style::new().dimmed();
    let when = time(event.time.as_ref())
        .map(|time| clock.local(time))
        .unwrap_or_default();
    if event.verdict() == Verdict::None {
        let message = printable(&event.message);
        return format!("{dim}{when}{dim:#}  {style}{verdict}{style:#}  {message}\n");
    }
    let reason = word(event.reason().as_str_name(), "REASON_");
    let place = match event.vlan {
        0 => printable(&event.interface),
        vlan => format!("{}.{vlan}", printable(&event.interface)),
    };
    let device = match (event.device.as_str(), event.zone.as_str()) {
        ("", "") => "-".to_owned(),
        ("", zone) => format!("({})", printable(zone)),
        (device, "") => printable(device),
        (device, zone) => format!("{} ({})", printable(device), printable(zone)),
    };
    let service = match event.service_name.as_str() {
        "" => printable(&event.service),
        name => format!("{} ({})", printable(&event.service), printable(name)),
    };
    let (from, to) = (&event.source, &event.destination);
    let (from, to) = if event.towards {
        (end(from, event), printable(to))
    } else {
        (printable(from), end(to, event))
    };
    let mut text = format!(
        "{dim}{when}{dim:#}  {style}{verdict}{style:#}  {reason:<17} {place}  {device}  {from} → {to}  \
         {service}",
    );
    if !event.rule.is_empty() {
        text += &format!("  by {}", printable(&event.rule));
    }
    if event.observed {
        text += "  observed";
    }
    if event.count > 1 {
        text += &format!("  ×{}", event.count);
    }
    if event.destinations > 1 {
        text += &format!(" to {}", event.destinations);
    }
    text + "\n"
}

/// The address of the other end, with what it is called.
fn end(address: &str, event: &Event) -> String {
    let address = printable(address);
    let named = event.peer != address && !event.peer.is_empty();
    match (named, event.peer_zone.as_str()) {
        (false, "") => address,
        (false, zone) => format!("{address} ({})", printable(zone)),
        (true, "") => format!("{address} {}", printable(&event.peer)),
        (true, zone) => format!("{address} {} ({})", printable(&event.peer), printable(zone)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use wardline_proto::v1::Reason;

    use super::*;
    use crate::table::uncoloured;

    #[test]
    fn an_event_is_a_line() {
        let clock = Clock {
            now: Timestamp::UNIX_EPOCH,
            zone: TimeZone::UTC,
        };
        let event = Event {
            time: Some(prost_types::Timestamp {
                seconds: 100,
                nanos: 5,
            }),
            verdict: Verdict::Drop.into(),
            reason: Reason::DeniedByRule.into(),
            rule: "no-telnet".to_owned(),
            device: "camera-1\n".to_owned(),
            zone: "cameras".to_owned(),
            interface: "lan3".to_owned(),
            vlan: 20,
            source: "10.20.3.1".to_owned(),
            destination: "10.20.9.5".to_owned(),
            service: "tcp/23".to_owned(),
            service_name: "telnet".to_owned(),
            peer: "nvr".to_owned(),
            peer_zone: "servers".to_owned(),
            count: 12,
            destinations: 3,
            ..Default::default()
        };
        assert_eq!(
            uncoloured(&event_text(&event, &clock)),
            "1970-01-01 00:01:40  drop  denied_by_rule    lan3.20  camera-1\\n (cameras)  \
             10.20.3.1 → 10.20.9.5 nvr (servers)  tcp/23 (telnet)  by no-telnet  ×12 to 3\n"
        );
        let event = Event {
            towards: true,
            peer: "10.20.3.1".to_owned(),
            ..event
        };
        let text = uncoloured(&event_text(&event, &clock));
        assert!(
            text.contains("  10.20.3.1 (servers) → 10.20.9.5  "),
            "{text}"
        );
    }
}
