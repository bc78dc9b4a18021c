//! Vendors' descriptions of devices (MUD, RFC 8520): what `wardctl mud` asks and shows.

use std::{fs::File, io::Read as _, path::Path};

use wardline_proto::{
    document::to_value,
    parts::Parts,
    v1::{
        AssessMudRequest, AssessMudResponse, CheckMudRequest, CheckMudResponse, DraftMudRequest,
        ImportMudRequest, MudOutcome, MudTrust, PlanRequest, Verdict,
    },
};

use crate::{
    args::{Change, Format, Mud, MudAssess, MudCheck, MudDraft, MudFile, MudImport},
    ask::agreed,
    exit::{Exit, Failure},
    humane::{bytes, printable, word},
    output, plan,
    policy::{changed, plan_of},
    session::Session,
    table::{cell, filled, judged, table},
};

/// Most bytes of a file; the router takes no more.
const LARGEST_FILE: u64 = 1 << 20;

/// Does what is asked of a file.
///
/// # Errors
/// The file can't be read, or the router refuses it or does not answer.
pub(crate) async fn mud(session: &Session, command: Mud) -> Result<Exit, Failure> {
    match command {
        Mud::Check(args) => check(session, args).await,
        Mud::Import(args) => import(session, args).await,
        Mud::Assess(args) => assess(session, args).await,
        Mud::Draft(args) => draft(session, args).await,
    }
}

async fn check(session: &Session, args: MudCheck) -> Result<Exit, Failure> {
    let request = CheckMudRequest {
        file: read(&args.file.file)?,
        signature: signature(&args.file)?,
        device: args.subject.device.unwrap_or_default(),
        label: args.subject.label.unwrap_or_default(),
        approve: args.approved,
    };
    let checked = ask(session, request).await?;
    output::warn(&checked.notices);
    output::answer(session.format, &checked, text)?;
    match checked.trust() {
        MudTrust::Refused => Err(unbelieved(&checked)),
        _ => Ok(Exit::Done),
    }
}

async fn import(session: &Session, args: MudImport) -> Result<Exit, Failure> {
    let file = read(&args.file.file)?;
    let signature = signature(&args.file)?;
    let device = args.subject.device.unwrap_or_default();
    let label = args.subject.label.unwrap_or_default();
    let Change { terms, yes } = args.change;
    let approve = args.approve.unwrap_or_default();
    let request = CheckMudRequest {
        file: file.clone(),
        signature: signature.clone(),
        device: device.clone(),
        label: label.clone(),
        approve: !approve.is_empty(),
    };
    let checked = ask(session, request).await?;
    output::warn(&checked.notices);
    if !matches!(checked.trust(), MudTrust::Verified | MudTrust::Approved) {
        output::answer(session.format, &checked, text)?;
        return Err(unbelieved(&checked));
    }
    let edit = PlanRequest {
        put: checked.put.clone(),
        delete: checked.delete.clone(),
        ..PlanRequest::default()
    };
    let none = Parts::default();
    if args.plan {
        let plan = plan_of(session, &none, edit).await?;
        return plan::tell(session, &plan);
    }
    agreed(plan_of(session, &none, edit), yes).await?;
    let request = ImportMudRequest {
        file,
        signature,
        device,
        label,
        approve,
        base: terms.base_or(checked.base),
        reason: terms.why.reason,
        confirm_within_s: terms.confirm_within.unwrap_or_default(),
    };
    let answer = session
        .ask(request, async |mut client, it| client.import_mud(it).await)
        .await?;
    let checked = answer.checked.unwrap_or_default();
    let change = answer.change.unwrap_or_default();
    if session.format == Format::Table {
        output::styled(&text(&checked))?;
        return changed(session, &change);
    }
    output::warn(&change.warnings);
    let mut value = to_value(&checked);
    if let (Some(fields), Some(more)) = (value.as_object_mut(), to_value(&change).as_object()) {
        // Only a grant has these.
        let more = more
            .iter()
            .filter(|(name, _)| *name != "name" && *name != "expires");
        fields.extend(more.map(|(name, value)| (name.clone(), value.clone())));
    }
    output::value(session.format, &value)
}

async fn assess(session: &Session, args: MudAssess) -> Result<Exit, Failure> {
    let request = AssessMudRequest {
        device: args.device.unwrap_or_default(),
    };
    let answer = session
        .ask(request, async |mut client, it| client.assess_mud(it).await)
        .await?;
    let without = answer.without.iter();
    let without = without.map(|it| format!("{it} has no rule of a MUD file"));
    output::warn(&without.collect::<Vec<_>>());
    output::answer(session.format, &answer, assessed_text)
}

async fn draft(session: &Session, args: MudDraft) -> Result<Exit, Failure> {
    let request = DraftMudRequest {
        device: args.device,
        url: args.url,
    };
    let answer = session
        .ask(request, async |mut client, it| client.draft_mud(it).await)
        .await?;
    // It is a file in JSON, whatever the format of answers is.
    output::text(&answer.file)
}

fn assessed_text(assessed: &AssessMudResponse) -> String {
    let mut text = String::new();
    for (what, list) in [("used", &assessed.used), ("unused", &assessed.unused)] {
        let rows = list.iter().map(|it| {
            vec![
                judged(what, what == "used"),
                cell(&it.device),
                cell(&it.rule),
                cell(it.from.join(" ")),
                cell(it.to.join(" ")),
                cell(it.services.join(" ")),
                cell(it.packets.to_string()),
            ]
        });
        let headings = [
            "RULES", "DEVICE", "RULE", "FROM", "TO", "SERVICES", "PACKETS>",
        ];
        text += &filled(table(&headings), rows, &format!("{what} rules"));
        text += "\n";
    }
    let rows = assessed.undeclared.iter().map(|it| {
        vec![
            judged(
                word(it.verdict().as_str_name(), "VERDICT_"),
                it.verdict() == Verdict::Pass,
            ),
            cell(&it.device),
            cell(word(it.direction().as_str_name(), "MUD_DIRECTION_")),
            cell(&it.peer),
            cell(&it.service),
            cell(word(it.reason().as_str_name(), "REASON_")),
            cell(&it.rule),
            cell(it.count.to_string()),
        ]
    });
    let headings = [
        "UNDECLARED",
        "DEVICE",
        "DIRECTION",
        "PEER",
        "SERVICE",
        "REASON",
        "RULE",
        "COUNT>",
    ];
    text += &filled(table(&headings), rows, "undeclared traffic");
    if assessed.more != 0 {
        text += &format!("and {} more kinds\n", assessed.more);
    }
    text
}

async fn ask(session: &Session, request: CheckMudRequest) -> Result<CheckMudResponse, Failure> {
    session
        .ask(request, async |mut client, it| client.check_mud(it).await)
        .await
}

fn unbelieved(checked: &CheckMudResponse) -> Failure {
    let trust = word(checked.trust().as_str_name(), "MUD_TRUST_");
    Failure::refused(format!("trust: {trust}: {}", checked.trust_reason))
}

/// The bytes of the signature; none if there is none.
fn signature(file: &MudFile) -> Result<Vec<u8>, Failure> {
    file.signature.as_deref().map_or(Ok(Vec::new()), read)
}

/// Reads a file as it is: a signature is over its very bytes.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let refused = |why: String| Failure::refused(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| refused(error.to_string()))?;
    let mut content = Vec::new();
    file.take(LARGEST_FILE + 1)
        .read_to_end(&mut content)
        .map_err(|error| refused(error.to_string()))?;
    if content.len() as u64 > LARGEST_FILE {
        return Err(refused(format!("larger than {}", bytes(LARGEST_FILE))));
    }
    Ok(content)
}

fn text(checked: &CheckMudResponse) -> String {
    let trust = checked.trust();
    let good = matches!(trust, MudTrust::Verified | MudTrust::Approved);
    let trusted = judged(word(trust.as_str_name(), "MUD_TRUST_"), good);
    let mut head = table(&["TRUST", "WHY"]);
    head.add_row(vec![trusted, cell(&checked.trust_reason)]);
    let mut text = head.trim_fmt() + "\n";
    if checked.url.is_empty() {
        return text;
    }
    text += &format!("\n{}", printable(&checked.url));
    if !checked.systeminfo.is_empty() {
        text += &format!(" ({})", printable(&checked.systeminfo));
    }
    text += "\n\n";
    let outcome = |it: MudOutcome| {
        let told = word(it.as_str_name(), "MUD_OUTCOME_");
        match it {
            MudOutcome::Imported => judged(told, true),
            MudOutcome::Dropped => judged(told, false),
            MudOutcome::Held | MudOutcome::Unspecified => cell(told),
        }
    };
    let aces = checked.aces.iter().map(|it| {
        vec![
            cell(&it.name),
            cell(word(it.direction().as_str_name(), "MUD_DIRECTION_")),
            outcome(it.outcome()),
            cell(it.rules.join(" ")),
            cell(&it.reason),
        ]
    });
    let defaults = checked.defaults.iter().map(|it| {
        let name = format!("default {}", it.name);
        vec![
            cell(name),
            cell("from_device"),
            outcome(it.outcome()),
            cell(it.rules.join(" ")),
            cell(&it.reason),
        ]
    });
    let headings = ["ENTRY", "DIRECTION", "OUTCOME", "RULES", "WHY"];
    text += &filled(table(&headings), aces.chain(defaults), "entries");
    if !checked.unresolved.is_empty() {
        text += "\nnobody here is:\n";
        for class in &checked.unresolved {
            text += &format!("  {}\n", printable(class));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use wardline_proto::v1::{MudAce, MudDirection, MudUndeclared, Reason};

    use super::*;
    use crate::table::uncoloured;

    #[test]
    fn what_is_undeclared_follows_what_is_used() {
        let assessed = AssessMudResponse {
            undeclared: vec![MudUndeclared {
                device: "bulb".to_owned(),
                direction: MudDirection::FromDevice.into(),
                peer: "192.0.2.7".to_owned(),
                service: "tcp/23".to_owned(),
                verdict: Verdict::Drop.into(),
                reason: Reason::NoRule.into(),
                count: 3,
                ..MudUndeclared::default()
            }],
            more: 2,
            ..AssessMudResponse::default()
        };
        assert_eq!(
            uncoloured(&assessed_text(&assessed)),
            "no used rules\n\nno unused rules\n\n\
             UNDECLARED  DEVICE  DIRECTION    PEER       SERVICE  REASON   RULE  COUNT\n\
             drop        bulb    from_device  192.0.2.7  tcp/23   no_rule            3\n\
             and 2 more kinds\n"
        );
    }

    #[test]
    fn an_entry_is_a_line_with_its_reason() {
        let checked = CheckMudResponse {
            trust: MudTrust::Unsigned.into(),
            trust_reason: "there is no signature".to_owned(),
            url: "https://lights.example/bulb".to_owned(),
            systeminfo: "Bulb".to_owned(),
            aces: vec![MudAce {
                name: "web".to_owned(),
                direction: MudDirection::FromDevice.into(),
                outcome: MudOutcome::Held.into(),
                reason: "it names nobody".to_owned(),
                rules: vec![],
            }],
            unresolved: vec!["controller urn:x".to_owned()],
            ..CheckMudResponse::default()
        };
        assert_eq!(
            uncoloured(&text(&checked)),
            "TRUST     WHY\nunsigned  there is no signature\n\nhttps://lights.example/bulb (Bulb)\n\n\
             ENTRY  DIRECTION    OUTCOME  RULES  WHY\n\
             web    from_device  held            it names nobody\n\n\
             nobody here is:\n  controller urn:x\n"
        );
    }
}
