//! The matrix as a page for people, rendered from the same rows that are checked.

use std::fmt::Write as _;

use super::{
    Topic,
    case::{Case, Says, Setting, Step},
    network::POLICY,
};

const INTRO: &str = include_str!("intro.md");

/// The whole page.
pub(crate) fn render(topics: &[Topic]) -> String {
    let cases = || topics.iter().flat_map(|topic| &topic.cases);
    let said: usize = cases().map(|case| case.said.len()).sum();
    let mirrored = cases().filter(|case| case.defect.is_some()).count();
    let mut page = INTRO
        .replace("{cases}", &cases().count().to_string())
        .replace("{said}", &said.to_string())
        .replace("{mirrored}", &mirrored.to_string())
        .replace("{policy}", POLICY)
        .replace("{settings}", &settings())
        .replace("{topics}", &contents(topics));
    for topic in topics {
        let (title, about) = (topic.title, topic.about);
        let _ = write!(page, "\n## {title}\n\n{about}\n\n{HEAD}");
        for cases in topic.cases.chunk_by(are_one) {
            row(cases, &mut page);
        }
    }
    page
}

const HEAD: &str = "\
    | case | packet | setting | verdict | reason | mirrors |\n\
    |---|---|---|---|---|---|\n";

/// Whether two neighbours are the same but for their family.
fn are_one(case: &Case, next: &Case) -> bool {
    case.family.is_some() && case.name == next.name && case.said == next.said
}

fn settings() -> String {
    let lines = Setting::ALL.map(|s| format!("| {} | {} |\n", s.label(), s.meaning()));
    format!("| setting | what it is |\n|---|---|\n{}", lines.concat())
}

fn contents(topics: &[Topic]) -> String {
    let line = |topic: &Topic| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-');
        let anchor: String = topic.title.to_lowercase().chars().filter(kept).collect();
        format!("- [{}](#{})\n", topic.title, anchor.replace(' ', "-"))
    };
    topics.iter().map(line).collect()
}

/// A case, or the same for both families: a line for each set of verdicts, with the settings that
/// give it.
fn row(cases: &[Case], page: &mut String) {
    let Some(case) = cases.first() else {
        return;
    };
    let (mut name, mut packet) = (case.to_string(), packets(&case.steps));
    if cases.len() > 1 {
        name.clone_from(&case.name);
        packet = packet.replace("IPv4 ", "IP ");
    }
    let mut defect = case.defect.unwrap_or_default();
    let mut lines: Vec<(Vec<&str>, &[Says])> = Vec::new();
    for (setting, said) in &case.said {
        match lines.iter_mut().find(|(_, same)| same == said) {
            Some((settings, _)) => settings.push(setting.label()),
            None => lines.push((vec![setting.label()], said)),
        }
    }
    for (settings, said) in lines {
        let settings = settings.join(", ");
        let verdict = each(said, |says| verdict(says).to_owned());
        let reason = each(said, ToString::to_string);
        let _ = writeln!(
            page,
            "| {name} | {packet} | {settings} | {verdict} | {reason} | {defect} |"
        );
        name.clear();
        packet.clear();
        defect = "";
    }
}

fn packets(steps: &[Step]) -> String {
    let mut before = None;
    let told = |step: &Step| {
        let after = match step.after {
            0 => String::new(),
            seconds => format!("{seconds} s later, "),
        };
        // In a sequence, the place is named when it changes.
        let place = match before.replace(step.at) {
            Some(place) if place == step.at => String::new(),
            _ => format!("{}: ", step.at),
        };
        format!("{after}{place}{}", step.frame).replace('|', "\\|")
    };
    let texts: Vec<String> = steps.iter().map(told).collect();
    match texts.as_slice() {
        [text] => text.clone(),
        _ => numbered(runs(&texts).into_iter()),
    }
}

/// Texts with the numbers of the first and the last frame that each is for.
fn runs(texts: &[String]) -> Vec<(usize, usize, &String)> {
    let mut first = 1;
    let mut runs = Vec::new();
    for same in texts.chunk_by(|text, next| text == next) {
        runs.push((first, first + same.len() - 1, &same[0]));
        first += same.len();
    }
    runs
}

/// A text for each frame; once, when it is the same for all.
fn each(said: &[Says], text: impl Fn(&Says) -> String) -> String {
    let texts: Vec<String> = said.iter().map(text).collect();
    let runs = runs(&texts);
    match runs.as_slice() {
        [(.., text)] => (*text).clone(),
        _ => numbered(runs.into_iter()),
    }
}

fn verdict(says: &Says) -> &'static str {
    if says.reason.passes() {
        "pass"
    } else {
        "**drop**"
    }
}

/// Lines with the numbers of the first and the last step that they are about.
fn numbered<'a>(lines: impl Iterator<Item = (usize, usize, &'a String)>) -> String {
    let line = |(first, last, text): (usize, usize, &String)| {
        if first == last {
            format!("{first}. {text}")
        } else {
            format!("{first}–{last}. {text}")
        }
    };
    lines.map(line).collect::<Vec<_>>().join("<br>")
}
