//! The verdict on a packet that would open a flow.

use anstyle::{AnsiColor, Style};
use wardline_proto::v1::{Answer, ExplainRequest, ExplainResponse};

use crate::{
    args::Explain,
    exit::{Exit, Failure},
    humane::{printable, word},
    output,
    session::Session,
};

/// Asks for the verdict and its reason.
///
/// # Errors
/// The question names an object that does not exist, or the router does not answer.
pub(crate) async fn explain(session: &Session, args: Explain) -> Result<Exit, Failure> {
    let request = ExplainRequest {
        from: args.from,
        to: args.to,
        service: args.service,
        port: args.port,
        source_port: args.source_port.into(),
        mac: args.mac,
    };
    let question = request.clone();
    let answer = session
        .ask(request, async |mut client, it| client.explain(it).await)
        .await?;
    let exit = match answer.verdict() {
        Answer::Allow => Exit::Done,
        Answer::Drop => Exit::Dropped,
        Answer::Unspecified => return Err(Failure::failed("the router gave no verdict")),
    };
    output::answer(session.format, &answer, |answer| {
        explain_text(&question, answer)
    })?;
    Ok(exit)
}

fn explain_text(question: &ExplainRequest, answer: &ExplainResponse) -> String {
    let (colour, verdict) = match answer.verdict() {
        Answer::Allow => (AnsiColor::Green, "allow"),
        Answer::Drop | Answer::Unspecified => (AnsiColor::Red, "drop"),
    };
    let style = colour.on_default().bold();
    let dim = Style::new().dimmed();
    let reason = word(answer.reason().as_str_name(), "REASON_");
    let rule = match answer.rule.as_str() {
        "" => String::new(),
        rule => format!(" by {}", printable(rule)),
    };
    let from = end(&question.from, &answer.source_zone);
    let to = end(&question.to, &answer.destination_zone);
    let service = printable(&question.service);
    let mut text = format!("{style}{verdict}{style:#}  {reason}{rule}  {from} → {to}  {service}\n");
    if !answer.packet.is_empty() {
        let packet = printable(&answer.packet);
        text += &format!("{dim}{packet}, revision {}{dim:#}\n", answer.revision);
    }
    text
}

/// One end as the question names it, and its zone unless the question names that.
fn end(selector: &str, zone: &str) -> String {
    let name = printable(selector.strip_prefix("device:").unwrap_or(selector));
    if zone.is_empty() || selector.strip_prefix("zone:") == Some(zone) {
        return name;
    }
    format!("{name} ({})", printable(zone))
}

#[cfg(test)]
mod tests {
    use wardline_proto::v1::Reason;

    use super::*;
    use crate::table::uncoloured;

    #[test]
    fn an_answer_is_a_sentence() {
        let question = ExplainRequest {
            from: "device:camera-1".to_owned(),
            to: "10.20.9.5".to_owned(),
            service: "tcp/443".to_owned(),
            ..Default::default()
        };
        let mut answer = ExplainResponse {
            verdict: Answer::Drop.into(),
            reason: Reason::NoRule.into(),
            source_zone: "cameras".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            uncoloured(&explain_text(&question, &answer)),
            "drop  no_rule  camera-1 (cameras) → 10.20.9.5  tcp/443\n"
        );
        answer.set_verdict(Answer::Allow);
        answer.set_reason(Reason::Rule);
        answer.rule = "cameras-to-nvr".to_owned();
        answer.packet = "tcp 10.20.3.1:49152 > 10.20.9.5:443".to_owned();
        answer.revision = 7;
        assert_eq!(
            uncoloured(&explain_text(&question, &answer)),
            "allow  rule by cameras-to-nvr  camera-1 (cameras) → 10.20.9.5  tcp/443\n\
             tcp 10.20.3.1:49152 > 10.20.9.5:443, revision 7\n"
        );
    }
}
