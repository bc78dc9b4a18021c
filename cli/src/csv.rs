//! Answers as CSV (RFC 4180): for spreadsheets, and for scripts that read lists.
//!
//! An object of a list is a line, and its fields are columns by the names that JSON has. What is within an
//! object has names with a dot (`facts.hostname`), and a list within it is one cell with spaces. An answer
//! with several lists has a first column that says which; one without a list is a single line.

use serde_json::{Map, Value};

use crate::{exit::Failure, humane::printable};

/// The lines of an answer with their heading; nothing for lists without an entry.
///
/// # Errors
/// When the lines can't be made.
pub(crate) fn lines(answer: &Value) -> Result<String, Failure> {
    let lists = lists(answer);
    let several = lists.len() > 1;
    let mut rows = Vec::new();
    for (name, entries) in &lists {
        for entry in *entries {
            let mut row = Vec::new();
            if several {
                row.push(("list".to_owned(), (*name).clone()));
            }
            flatten("", entry, &mut row);
            rows.push(row);
        }
    }
    if lists.is_empty() {
        let mut row = Vec::new();
        flatten("", answer, &mut row);
        rows.push(row);
    }
    if rows.is_empty() {
        return Ok(String::new());
    }
    let mut columns: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    let heading = columns.iter().map(|it| (*it).to_owned()).collect();
    let cells = rows.iter().map(|row| {
        let cell = |column: &&str| row.iter().find(|(name, _)| name == column);
        let cells = columns
            .iter()
            .map(|it| cell(it).map_or("", |(_, cell)| cell));
        cells.map(str::to_owned).collect()
    });
    written(std::iter::once(heading).chain(cells))
}

/// One entry of a stream, whose fields are always the same; the first one has the heading.
///
/// # Errors
/// When the line can't be made.
pub(crate) fn entry(entry: &Value, is_first: bool) -> Result<String, Failure> {
    let text = lines(&Value::Object(Map::from_iter([(
        "entries".to_owned(),
        Value::Array(vec![entry.clone()]),
    )])))?;
    match text.split_once("\r\n") {
        Some((_, line)) if !is_first => Ok(line.to_owned()),
        _ => Ok(text),
    }
}

/// The lists of objects in an answer.
fn lists(answer: &Value) -> Vec<(&String, &Vec<Value>)> {
    let fields = answer.as_object().into_iter().flatten();
    let lists = fields.filter_map(|(name, value)| Some((name, value.as_array()?)));
    lists
        .filter(|(_, entries)| entries.iter().all(Value::is_object))
        .collect()
}

fn flatten(name: &str, value: &Value, row: &mut Vec<(String, String)>) {
    match value {
        // Keys of labels are not fields.
        Value::Object(fields) if name != "labels" => {
            for (field, value) in fields {
                let name = match name {
                    "" => field.clone(),
                    outer => format!("{outer}.{field}"),
                };
                flatten(&name, value, row);
            }
        }
        value => row.push((name.to_owned(), harmless(&text(value)))),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(text).collect();
            values.join(" ")
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}={}", text(value)))
                .collect();
            fields.join(" ")
        }
        value => value.to_string(),
    }
}

/// The text with control characters escaped, and with an apostrophe before what a spreadsheet would take
/// for a formula: much of it comes from devices.
fn harmless(text: &str) -> String {
    let text = printable(text);
    match text.chars().next() {
        Some('=' | '+' | '-' | '@') => format!("'{text}"),
        _ => text,
    }
}

fn written(rows: impl Iterator<Item = Vec<String>>) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("no CSV: {error}"));
    let mut writer = csv::WriterBuilder::new();
    let mut writer = writer
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).map_err(|error| failed(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(answer: &Value) -> String {
        lines(answer).expect("CSV")
    }

    #[test]
    fn an_object_of_a_list_is_a_line() {
        let answer = json!({"devices": [
            {"name": "pump, first", "macs": ["a", "b"], "facts": {"hostname": "p\"1"}, "last_seen": null},
            {"name": "camera", "macs": [], "facts": {"hostname": ""}, "last_seen": "2026-11-30T00:00:00Z"},
        ]});
        assert_eq!(
            told(&answer),
            "name,macs,facts.hostname,last_seen\r\n\
             \"pump, first\",a b,\"p\"\"1\",\r\n\
             camera,,,2026-11-30T00:00:00Z\r\n"
        );
        assert_eq!(told(&json!({"devices": []})), "");
    }

    #[test]
    fn several_lists_say_which_and_none_is_one_line() {
        let answer = json!({"reasons": [{"reason": "no_rule", "packets": 3}], "rules": [{"rule": "a", "packets": 1}]});
        assert_eq!(
            told(&answer),
            "list,reason,packets,rule\r\nreasons,no_rule,3,\r\nrules,,1,a\r\n"
        );
        assert_eq!(
            told(&json!({"revision": 7, "confirm_by": null})),
            "revision,confirm_by\r\n7,\r\n"
        );
    }

    #[test]
    fn what_looks_like_a_formula_or_steers_a_terminal_is_harmless() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+4", "'+4"),
            ("-x", "'-x"),
            ("@a", "'@a"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\t=1", "\\t=1"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(harmless(text), cell);
        }
    }

    #[test]
    fn a_stream_has_its_heading_once() {
        let event = json!({"reason": "no_rule", "count": 2});
        assert_eq!(
            entry(&event, true).expect("CSV"),
            "reason,count\r\nno_rule,2\r\n"
        );
        assert_eq!(entry(&event, false).expect("CSV"), "no_rule,2\r\n");
    }

    #[test]
    fn labels_are_one_cell() {
        let answer = json!({"devices": [{"name": "a", "labels": {"ward": "3", "model": "p7"}}]});
        assert_eq!(told(&answer), "name,labels\r\na,ward=3 model=p7\r\n");
    }
}
