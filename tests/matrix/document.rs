//! The matrix as a page for people, rendered from the same rows that are checked.

use std::fmt::Write as _;

use super::{
    Topic,
    case::{Case, Says, Setting, Step},
    network::POLICY,
};

const INTRO: &str = include_str!("intro.md");

/// The whole page.
pub(super) fn render(topics: &[Topic]) -> String {
    let cases = topics.iter().flat_map(|topic| &topic.cases);
    let rows: usize = topics.iter().map(|topic| topic.cases.len()).sum();
    let said: usize = cases.clone().map(|case| case.said.len()).sum();
    let mirrored = cases.filter(|case| case.defect.is_some()).count();
    let mut page = INTRO
        .replace("{rows}", &rows.to_string())
        .replace("{said}", &said.to_string())
        .replace("{mirrored}", &mirrored.to_string())
        .replace("{policy}", POLICY)
        .replace("{settings}", &settings())
        .replace("{topics}", &contents(topics));
    for topic in topics {
        let _ = write!(page, "\n## {}\n\n{}\n\n", topic.title, topic.about);
        page.push_str("| case | packet | setting | verdict | reason | would show |\n|---|---|---|---|---|---|\n");
        for case in &topic.cases {
            row(case, &mut page);
        }
    }
    page
}

fn settings() -> String {
    let named = Setting::ALL.into_iter().filter(|setting| !setting.label().is_empty());
    let lines = named.map(|setting| format!("| {} | {} |\n", setting.label(), setting.meaning()));
    format!("| setting | what differs |\n|---|---|\n{}", lines.collect::<String>())
}

fn contents(topics: &[Topic]) -> String {
    let line = |topic: &Topic| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-');
        let anchor: String = topic.title.to_lowercase().chars().filter(kept).collect();
        format!("- [{}](#{}), {}\n", topic.title, anchor.replace(' ', "-"), topic.cases.len())
    };
    topics.iter().map(line).collect()
}

/// A case, one line for each setting; what is the same as above is left out.
fn row(case: &Case, page: &mut String) {
    let defect = case.defect.unwrap_or_default();
    let packet = packets(&case.steps);
    let (mut name, mut packet, mut defect) = (case.name.as_str(), packet.as_str(), defect);
    for (setting, said) in &case.said {
        let verdict = each(said, |says| verdict(says).to_owned());
        let reason = each(said, ToString::to_string);
        let label = setting.label();
        let _ = writeln!(page, "| {name} | {packet} | {label} | {verdict} | {reason} | {defect} |");
        (name, packet, defect) = ("", "", "");
    }
}

fn packets(steps: &[Step]) -> String {
    let told = |step: &Step| {
        let after = match step.after {
            0 => String::new(),
            seconds => format!("{seconds} s later, "),
        };
        format!("{after}{}: {}", step.at, step.frame).replace('|', "\\|")
    };
    match steps {
        [step] => told(step),
        _ => numbered(steps.iter().map(told)),
    }
}

/// What is said of each frame; once, when it is the same of all.
fn each(said: &[Says], text: impl Fn(&Says) -> String) -> String {
    let texts: Vec<String> = said.iter().map(text).collect();
    match texts.as_slice() {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => first.clone(),
        _ => numbered(texts.into_iter()),
    }
}

fn verdict(says: &Says) -> &'static str {
    if says.reason.passes() { "pass" } else { "**drop**" }
}

fn numbered(texts: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = (1..).zip(texts).map(|(number, text)| format!("{number}. {text}")).collect();
    lines.join("<br>")
}
