//! `wardlined --restore`: makes a router's files from a backup.

use std::path::Path;

use anyhow::bail;
use jiff::Timestamp;
use wardline_proto::backup::Summary;

use super::offline::{is_stopped, judged_by, line, note};
use crate::{
    access::audit::Audit,
    config::Config,
    store::{
        enforced::{Copies, Enforced},
        rebuild::{Last, Rebuild, actor},
        restore::{contents, fill},
        salvage::{self, Database},
    },
};

/// Restores a backup; returns what was done. `replaces`: a history that is there is set aside first.
///
/// # Errors
///
/// When the backup is not whole, a daemon runs, or there is a history that may not be replaced. Then
/// nothing has changed.
pub async fn restore(
    config: &Config,
    file: &Path,
    replaces: bool,
    only_looks: bool,
) -> anyhow::Result<String> {
    is_stopped(config).await?;
    let state_dir = &config.state_dir;
    let summary = contents(file)?.summary;
    let mut report = String::new();
    line(&mut report, "backup", &described(&summary, config));
    let (is_new, there) = there(state_dir)?;
    if !is_new && !replaces {
        bail!(
            "{} has a history already; --replace sets it aside first, and wardlined --recover mends \
             a damaged one",
            state_dir.display()
        );
    }
    if only_looks {
        line(
            &mut report,
            "to do",
            "wardlined --restore; nothing was changed",
        );
        return Ok(report);
    }
    let judged_by = judged_by(&config.pin_dir);
    let mut rebuild = Rebuild::begin(state_dir)?;
    let (summary, mut in_force) = fill(&mut rebuild, file)?;
    let seen = [
        in_force.revision,
        in_force.owed.last().map_or(0, |owed| owed.revision),
        there.as_ref().map_or(0, |it| it.revision),
        Audit::tells_of(state_dir).unwrap_or_default(),
        judged_by.unwrap_or_default(),
    ];
    let number = seen.into_iter().max().unwrap_or_default() + 1;
    // The numbers of names that the kernel's tables were made with stay what they are.
    let is_known = match &there {
        Some(there) => {
            in_force.ids.clone_from(&there.ids);
            true
        }
        None => judged_by.is_none(),
    };
    let reason = format!(
        "restored from the backup of {} from {}, revision {}, audit head {}",
        summary.router, summary.time, summary.revision, summary.audit_head
    );
    let last = Last {
        number,
        kind: "restore",
        actor: &actor(),
        reason: &reason,
    };
    let (in_force, aside) = rebuild.finish(in_force, &last)?;
    let done = format!("revision {number}, with what the backup has in force");
    line(&mut report, "restored", &done);
    if let Some(aside) = aside {
        let told = format!("what was there is in {}", aside.display());
        line(&mut report, "aside", &told);
    }
    if let Err(error) = Copies::read(state_dir).0.write(&in_force) {
        let told = format!("no copy was written, and the start reads the database: {error}");
        line(&mut report, "warning", &told);
    }
    if !is_known {
        line(
            &mut report,
            "warning",
            "the kernel judges by tables whose numbers are not known: restart the router before \
             you start wardlined, if you can",
        );
    }
    note(&mut report, config, "Restore", &reason, number);
    line(
        &mut report,
        "next",
        "start wardlined; wardctl status shows what is in force",
    );
    Ok(report)
}

/// Whether there is no history, and what the files that are there have in force.
fn there(state_dir: &Path) -> anyhow::Result<(bool, Option<Enforced>)> {
    let copies = Copies::read(state_dir).1;
    let database = salvage::look(state_dir)?;
    let is_new = database.is_new() && copies.enforced.is_none() && copies.problems.is_empty();
    let stored = match &database {
        Database::There(salvage) => salvage.in_force().filter(|(_, known)| *known),
        Database::Gone | Database::Empty | Database::Unreadable(_) => None,
    };
    let stored = stored.map(|(stored, _)| stored);
    let all = [copies.enforced, stored].into_iter().flatten();
    Ok((is_new, all.max_by_key(|it| it.revision)))
}

/// Of what and when a backup is, and what that means.
fn described(summary: &Summary, config: &Config) -> String {
    let age = summary.time.parse::<Timestamp>().map_or_else(
        |_| "at an unknown time".to_owned(),
        |time| {
            let minutes = Timestamp::now().duration_since(time).as_mins();
            match minutes {
                ..120 => format!("{minutes} minutes ago"),
                120..2880 => format!("{} hours ago", minutes / 60),
                _ => format!("{} days ago", minutes / 1440),
            }
        },
    );
    let cut = summary.quarantined_devices.len() + summary.quarantined_ports.len();
    let other = if summary.router == config.router {
        String::new()
    } else {
        format!(", and this is {}", config.router)
    };
    let waits = if summary.pending {
        "; a change that waited for its confirmation is taken back at the start"
    } else {
        ""
    };
    format!(
        "of {}{other}, made {age}, revision {}; {cut} in quarantine, as it was then{waits}",
        summary.router, summary.revision
    )
}
