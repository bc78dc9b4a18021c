//! Why something does not work: what was dropped lately of a device, in sentences.

use anstyle::{AnsiColor, Style};
use wardline_proto::{
    document::policy_to_yaml,
    v1::{Answer, DropKind, ExplainDropsRequest, ExplainDropsResponse},
};

use crate::{
    args::Dropped,
    exit::{Exit, Failure},
    humane::{Clock, printable, time, word},
    output,
    session::Session,
};

/// Asks what was dropped, and prints it with what would allow it.
///
/// # Errors
/// The router knows nothing of the device, or does not answer.
pub(crate) async fn why(session: &Session, args: Dropped) -> Result<Exit, Failure> {
    let request = ExplainDropsRequest {
        device: args.device,
        peer: args.peer.unwrap_or_default(),
        since_s: args.since.unwrap_or_default(),
        limit: args.limit.unwrap_or_default(),
    };
    let peer = request.peer.clone();
    let answer = session
        .ask(request, async |mut client, it| {
            client.explain_drops(it).await
        })
        .await?;
    output::answer(session.format, &answer, |answer| {
        why_text(answer, &peer, &Clock::system())
    })
}

fn why_text(answer: &ExplainDropsResponse, peer: &str, clock: &Clock) -> String {
    let device = printable(&answer.device);
    let since = time(answer.since.as_ref()).map(|at| clock.local(at));
    let since = since.unwrap_or_default();
    let between = match peer {
        "" => format!("of {device}"),
        peer => format!("between {device} and {}", printable(peer)),
    };
    let mut text = String::new();
    if answer.quarantined {
        text += &format!("{device} is in quarantine now.\n\n");
    }
    if answer.drops.is_empty() {
        text += &format!("Nothing {between} was dropped since {since}.\n");
    }
    let kinds: Vec<String> = answer
        .drops
        .iter()
        .map(|kind| kind_text(kind, clock))
        .collect();
    text += &kinds.join("\n");
    if answer.more != 0 {
        text += &format!(
            "\n{} more kinds of drops; --limit shows them.\n",
            answer.more
        );
    }
    if answer.incomplete {
        text += "\nThere were too many drops to look at all; --since looks less far back.\n";
    }
    text
}

fn kind_text(kind: &DropKind, clock: &Clock) -> String {
    let bold = Style::new().bold();
    let when = |at: Option<&prost_types::Timestamp>| {
        time(at).map(|at| clock.distance(at)).unwrap_or_default()
    };
    let service = match kind.service_name.as_str() {
        "" => printable(&kind.service),
        name => format!("{} ({})", printable(name), printable(&kind.service)),
    };
    let times = match kind.count {
        1 => format!("One packet was dropped, {}.", when(kind.last.as_ref())),
        count => format!(
            "{count} packets were dropped, the last {}, the first {}.",
            when(kind.last.as_ref()),
            when(kind.first.as_ref())
        ),
    };
    let mut text = format!(
        "{bold}{} asked {} for {service} at {}.{bold:#} {times}\n",
        end(&kind.sender, &kind.sender_zone, &kind.source),
        end(&kind.receiver, &kind.receiver_zone, &kind.destination),
        printable(&kind.interface),
    );
    let rule = match kind.rule.as_str() {
        "" => String::new(),
        rule => format!(", rule {}", printable(rule)),
    };
    let reason = word(kind.reason().as_str_name(), "REASON_");
    text += &format!("  Why: {} ({reason}{rule})\n", printable(&kind.meaning));
    let (colour, now) = match kind.now() {
        Answer::Allow => (AnsiColor::Green, now_text("it is allowed", kind)),
        Answer::Drop => (AnsiColor::Red, now_text("it would be dropped", kind)),
        Answer::Unspecified => (AnsiColor::Yellow, String::new()),
    };
    let style = colour.on_default();
    if !now.is_empty() {
        text += &format!("  Now: {style}{now}{style:#}\n");
    }
    if !kind.cure.is_empty() {
        text += &format!("  Cure: {}\n", printable(&kind.cure));
    }
    if let Some(fragment) = &kind.fragment {
        text += "  This would allow it, as a file for `wardctl put -f FILE`:\n";
        for line in policy_to_yaml(fragment).lines() {
            text += &format!("    {}\n", printable(line));
        }
    }
    text
}

fn now_text(what: &str, kind: &DropKind) -> String {
    let reason = word(kind.now_reason().as_str_name(), "REASON_");
    match kind.now_rule.as_str() {
        "" => format!("{what} ({reason})."),
        rule => format!("{what} ({reason}, rule {}).", printable(rule)),
    }
}

/// An end with its zone, and its address beside its name.
fn end(name: &str, zone: &str, address: &str) -> String {
    let mut more = Vec::new();
    if !zone.is_empty() {
        more.push(format!("zone {}", printable(zone)));
    }
    if name != address {
        more.push(printable(address));
    }
    match more.as_slice() {
        [] => printable(name),
        more => format!("{} ({})", printable(name), more.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};
    use wardline_proto::v1::{Action, Policy, Reason, Rule};

    use super::*;
    use crate::table::uncoloured;

    #[test]
    fn an_answer_says_who_what_why_and_what_helps() {
        let clock = Clock {
            now: Timestamp::constant(1000, 0),
            zone: TimeZone::UTC,
        };
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let rule = Rule {
            name: "pump-1-to-ehr-hl7".to_owned(),
            from: vec!["device:pump-1".to_owned()],
            to: vec!["device:ehr".to_owned()],
            services: vec!["hl7".to_owned()],
            action: Action::Allow.into(),
            ..Default::default()
        };
        let kind = DropKind {
            first: at(400),
            last: at(940),
            count: 12,
            sender: "pump-1".to_owned(),
            sender_zone: "pumps".to_owned(),
            receiver: "ehr".to_owned(),
            receiver_zone: "servers".to_owned(),
            service: "tcp/2575".to_owned(),
            service_name: "hl7".to_owned(),
            interface: "lan1".to_owned(),
            source: "10.20.1.11".to_owned(),
            destination: "10.20.9.5".to_owned(),
            reason: Reason::NoRule.into(),
            meaning: "No rule allows it.".to_owned(),
            now: Answer::Drop.into(),
            now_reason: Reason::NoRule.into(),
            cure: "If it is wanted, add an allow rule.".to_owned(),
            fragment: Some(Policy {
                version: 1,
                rules: vec![rule],
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut answer = ExplainDropsResponse {
            device: "pump-1".to_owned(),
            since: at(0),
            drops: vec![kind],
            ..Default::default()
        };
        let text = uncoloured(&why_text(&answer, "", &clock));
        let expected = "pump-1 (zone pumps, 10.20.1.11) asked ehr (zone servers, 10.20.9.5) for hl7 \
                        (tcp/2575) at lan1. 12 packets were dropped, the last 1m ago, the first 10m \
                        ago.\n  Why: No rule allows it. (no_rule)\n  Now: it would be dropped \
                        (no_rule).\n  Cure: If it is wanted, add an allow rule.\n  This would allow \
                        it, as a file for `wardctl put -f FILE`:\n    version: 1\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("    - name: pump-1-to-ehr-hl7\n"), "{text}");
        answer.drops[0].fragment = None;
        answer.drops[0].cure.clear();
        answer.drops[0].set_now(Answer::Allow);
        answer.drops[0].set_now_reason(Reason::Rule);
        answer.drops[0].now_rule = "new".to_owned();
        answer.drops[0].count = 1;
        let text = uncoloured(&why_text(&answer, "", &clock));
        assert!(text.contains("One packet was dropped, 1m ago."), "{text}");
        assert!(
            text.ends_with("  Now: it is allowed (rule, rule new).\n"),
            "{text}"
        );
        answer.drops.clear();
        assert_eq!(
            uncoloured(&why_text(&answer, "ehr", &clock)),
            "Nothing between pump-1 and ehr was dropped since 1970-01-01 00:00:00.\n"
        );
    }
}
