//! Imports every MUD file of a folder into a site of its own, and prints what became of each entry.
//!
//! What the files mean is known to `wardline-mud` alone; here is only who is at the site. Each class of
//! controllers that the files name has somebody, so that the entries show what they become.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use wardline_mud::{Anchors, Imported, Outcome, Request, Subject, import};
use wardline_policy::{document::edit, intent::Intent, limits::Limits};
use wardline_proto::v1::{Device, Policy, Port, Zone};

/// Most files.
const MOST_FILES: usize = 10_000;

/// Imports the files; fails when an entry has no reason for making no rule, or a document with the rules
/// would be refused.
pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    gather(folder, &mut files)?;
    files.sort();
    ensure!(
        !files.is_empty(),
        "{}: no .json file in it",
        folder.display()
    );
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for path in &files {
        let name = path.strip_prefix(folder).unwrap_or(path).display();
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        println!("\n{name}");
        let (signature, anchors, now) = signed(path)?;
        let subject = Subject::Device("device".to_owned());
        let document = site(&bytes);
        let imported = import(&Request {
            file: &bytes,
            signature: &signature,
            anchors: &anchors,
            now,
            subject: Some(&subject),
            is_approved: true,
            document: &document,
            router_is: &[],
        });
        match imported {
            Ok(imported) => tell(&imported, &document, &mut counts)?,
            Err(refused) => {
                *counts.entry("files refused").or_default() += 1;
                println!("  refused: {refused}");
            }
        }
    }
    println!("\n{} files", files.len());
    for (what, count) in counts {
        println!("{count:6} {what}");
    }
    Ok(())
}

fn tell(
    imported: &Imported,
    document: &Policy,
    counts: &mut BTreeMap<&str, usize>,
) -> anyhow::Result<()> {
    println!("  {}: {}", imported.trust.word(), imported.why);
    for notice in &imported.notices {
        println!("  notice: {notice}");
    }
    for ace in &imported.aces {
        let (word, counted) = match ace.outcome {
            Outcome::Imported => ("imported", "entries imported"),
            Outcome::Held => ("held", "entries held"),
            Outcome::Dropped => ("dropped", "entries dropped"),
        };
        *counts.entry(counted).or_default() += 1;
        if ace.rules.is_empty() && ace.reason.is_empty() {
            bail!("{}: no rule and no reason", ace.name);
        }
        let rules: String = ace.rules.iter().map(|it| format!(" {it}")).collect();
        println!("  {word:8} {}:{rules}{}", ace.name, spaced(&ace.reason));
    }
    for class in &imported.unresolved {
        println!("  nobody is: {class}");
    }
    *counts.entry("rules").or_default() += imported.put.rules.len();
    let edit = edit::Edit {
        put: Some(imported.put.clone()),
        delete: imported.delete.clone(),
    };
    let mut edited = document.clone();
    let refused = |problems: Vec<_>| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the document would be refused: {}", problems.join("; "))
    };
    edit::change(&mut edited, &edit).map_err(refused)?;
    Intent::from_policy(&edited, &Limits::default(), Timestamp::UNIX_EPOCH).map_err(refused)?;
    Ok(())
}

fn spaced(reason: &str) -> String {
    match reason {
        "" => String::new(),
        reason => format!(" ({reason})"),
    }
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            gather(&path, files)?;
        } else if path.extension().is_some_and(|it| it == "json") {
            ensure!(files.len() < MOST_FILES, "more than {MOST_FILES} files");
            files.push(path);
        }
    }
    Ok(())
}

/// The signature beside a file, the certificates in its folder, and a time at which they are good: a week
/// after the last of them began to be.
fn signed(path: &Path) -> anyhow::Result<(Vec<u8>, Anchors, Timestamp)> {
    let beside = path.with_extension("p7s");
    if !beside.exists() {
        return Ok((Vec::new(), Anchors::default(), Timestamp::UNIX_EPOCH));
    }
    let signature = fs::read(&beside)?;
    let folder = path.parent().context("a file without a folder")?;
    let mut pem = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "pem") {
            pem.extend(fs::read(path)?);
        }
    }
    let anchors = Anchors::from_pem(&pem).map_err(anyhow::Error::msg)?;
    let begins = anchors.begins().context("no certificates")?;
    Ok((
        signature,
        anchors,
        begins + jiff::SignedDuration::from_hours(7 * 24),
    ))
}

/// A site with a device, two local networks, and somebody in every class that a file names.
fn site(file: &[u8]) -> Policy {
    let zone = |name: &str, subnets: &[&str]| Zone {
        name: name.to_owned(),
        subnets: subnets.iter().map(|it| (*it).to_owned()).collect(),
        ..Zone::default()
    };
    let device = |name: String, labels: &[(&str, &str)]| Device {
        name,
        zone: "servers".to_owned(),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..Device::default()
    };
    let mut policy = Policy {
        version: 1,
        zones: vec![
            zone("devices", &["10.20.1.0/24", "fd20:0:0:1::/64"]),
            zone("servers", &["10.20.2.0/24", "fd20:0:0:2::/64"]),
        ],
        ports: vec![Port {
            interface: "lan1".to_owned(),
            zone: "devices".to_owned(),
            ..Port::default()
        }],
        devices: vec![Device {
            name: "device".to_owned(),
            zone: "devices".to_owned(),
            macs: vec!["02:00:00:00:01:11".to_owned()],
            ..Device::default()
        }],
        ..Policy::default()
    };
    let file: serde_json::Value = serde_json::from_slice(file).unwrap_or_default();
    let mut add = |labels: &[(&str, &str)]| {
        let at = policy.devices.len();
        let mut device = device(format!("server-{at}"), labels);
        device.addresses = vec![format!("10.20.2.{}", at.min(250))];
        // More classes than addresses are left without anybody.
        if at < 250 {
            policy.devices.push(device);
        }
    };
    add(&[
        ("mud-controller/1", "urn:ietf:params:mud:dns"),
        ("mud-controller/2", "urn:ietf:params:mud:ntp"),
    ]);
    let mut classes = BTreeMap::new();
    named(&file, &mut classes);
    for (text, key) in classes {
        match key {
            "manufacturer" => add(&[("mud-maker", &text.to_lowercase())]),
            "model" => add(&[("mud", &text)]),
            _ => add(&[("mud-controller", &text)]),
        }
    }
    policy
}

/// The classes that a file names; its own URL is the class of `my-controller`.
fn named(value: &serde_json::Value, classes: &mut BTreeMap<String, &'static str>) {
    const KEYS: [&str; 4] = ["manufacturer", "model", "controller", "mud-url"];
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match (KEYS.iter().find(|it| *it == name), value.as_str()) {
                    (Some(key), Some(text)) if text.len() <= 63 => {
                        classes.insert(text.to_owned(), key);
                    }
                    _ => named(value, classes),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|it| named(it, classes)),
        _ => {}
    }
}
