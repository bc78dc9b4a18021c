//! `wardlined --recover`: says what can be had back of a router's files and from where, and does it.

use std::path::Path;

use anyhow::Context as _;

use super::offline::{is_stopped, judged_by, line, note};
use crate::{
    access::audit::Audit,
    config::Config,
    store::{
        LOST,
        enforced::{Copies, Enforced, Found},
        rebuild::{Last, Rebuild, actor, hand_over, remove, set_aside},
        salvage::{self, Database, Salvage},
    },
};

/// What was found, wherever something may be.
struct Survey {
    database: Database,
    copies: Found,
    audit: Option<u64>,
    judged_by: Option<u64>,
}

/// What there will be in force.
struct Source {
    in_force: Enforced,
    from: &'static str,
    /// What holds beside the document is not known, or older.
    missing: Option<String>,
}

/// Recovers what can be; returns what was found and done.
///
/// # Errors
///
/// When a daemon runs, or the files can't be written. Then what was there is still there.
pub async fn recover(config: &Config, only_looks: bool) -> anyhow::Result<String> {
    if !only_looks {
        is_stopped(config).await?;
    }
    let state_dir = &config.state_dir;
    let survey = Survey {
        database: salvage::look(state_dir)?,
        copies: Copies::read(state_dir).1,
        audit: Audit::tells_of(state_dir),
        judged_by: judged_by(&config.pin_dir),
    };
    let mut report = survey.told(state_dir);
    if survey.is_new() {
        line(
            &mut report,
            "found",
            "nothing tells of a policy: a new router, with nothing lost",
        );
        return Ok(report);
    }
    let source = survey.source();
    let rebuilds = survey.rebuilds();
    if !rebuilds && survey.copies.problems.is_empty() && survey.copies.enforced.is_some() {
        line(&mut report, "found", "nothing is damaged");
        return Ok(report);
    }
    match &source {
        Some(source) => {
            let revision = source.in_force.revision;
            line(
                &mut report,
                "back",
                &format!("revision {revision} in force, {}", source.from),
            );
            if let Some(missing) = &source.missing {
                line(&mut report, "lost", missing);
            }
        }
        None => line(
            &mut report,
            "lost",
            "the document that was in force; apply one after the start, or restore a backup",
        ),
    }
    if rebuilds {
        match survey.readable() {
            0 => line(
                &mut report,
                "lost",
                "the history: no revision of it can be read",
            ),
            _ => line(&mut report, "back", &survey.history()),
        }
    }
    if only_looks {
        line(
            &mut report,
            "to do",
            "wardlined --recover; nothing was changed",
        );
        return Ok(report);
    }
    let done = if rebuilds {
        survey.rebuild(config, source, &mut report)
    } else {
        survey.copy(state_dir, source, &mut report)
    };
    done.context("nothing is lost that was there, but not all could be done")?;
    line(
        &mut report,
        "next",
        "start wardlined; wardctl status shows what is in force",
    );
    Ok(report)
}

impl Survey {
    /// Whether nothing tells of a policy.
    fn is_new(&self) -> bool {
        self.database.is_new()
            && self.copies.enforced.is_none()
            && self.copies.problems.is_empty()
            && self.copies.guarded.is_empty()
            && self.audit.is_none()
            && self.judged_by.is_none()
    }

    /// Whether the database has to be made anew.
    fn rebuilds(&self) -> bool {
        match self.salvage() {
            Some(salvage) => salvage.damage.is_some() || salvage.readable.is_empty(),
            None => true,
        }
    }

    fn salvage(&self) -> Option<&Salvage> {
        match &self.database {
            Database::There(salvage) => Some(salvage),
            Database::Gone | Database::Empty | Database::Unreadable(_) => None,
        }
    }

    fn told(&self, state_dir: &Path) -> String {
        let mut report = String::new();
        let database = match &self.database {
            Database::Gone => "gone".to_owned(),
            Database::Empty => "empty".to_owned(),
            Database::Unreadable(why) => format!("nothing of it can be read: {why}"),
            Database::There(salvage) => {
                let newest = salvage.readable.last().copied().unwrap_or_default();
                let (read, lost) = (salvage.readable.len(), salvage.lost);
                match &salvage.damage {
                    Some(why) if read == 0 => format!("damaged: {why}; no revision can be read"),
                    None => format!("whole, {read} revisions, the newest {newest}"),
                    Some(why) => format!(
                        "damaged: {why}; {read} revisions can be read, the newest {newest}, and \
                         {lost} of those that are there can't"
                    ),
                }
            }
        };
        let place = state_dir.join("wardline.db");
        line(
            &mut report,
            "database",
            &format!("{}: {database}", place.display()),
        );
        let copy = self.copies.enforced.as_ref();
        let copy = copy.map_or_else(
            || "none".to_owned(),
            |it| format!("revision {}", it.revision),
        );
        line(&mut report, "copy", &copy);
        for problem in &self.copies.problems {
            line(&mut report, "copy", &problem.to_string());
        }
        let names: Vec<&str> = self.copies.guarded.iter().map(String::as_str).collect();
        let guarded = match names.as_slice() {
            [] => "no port is known".to_owned(),
            names => names.join(", "),
        };
        line(&mut report, "guarded", &guarded);
        let tells = |revision: Option<u64>, verb: &str| match revision {
            Some(revision) => format!("{verb} revision {revision}"),
            None => "nothing".to_owned(),
        };
        line(&mut report, "audit", &tells(self.audit, "tells of"));
        line(&mut report, "kernel", &tells(self.judged_by, "judges by"));
        report
    }

    /// How many revisions can be read.
    fn readable(&self) -> usize {
        self.salvage().map_or(0, |it| it.readable.len())
    }

    /// What of the history can be had back, in words.
    fn history(&self) -> String {
        let lost = self.salvage().map_or(0, |it| it.lost);
        match (self.readable(), lost) {
            (0, _) => "nothing of the history".to_owned(),
            (read, 0) => format!("{read} revisions of the history"),
            (read, lost) => {
                format!("{read} revisions of the history; {lost} that are there can't be read")
            }
        }
    }

    /// The newest of what is known to have been in force.
    fn source(&self) -> Option<Source> {
        let copy = self.copies.enforced.clone();
        let stored = self.salvage().and_then(Salvage::in_force);
        let is_newer = |(stored, _): &(Enforced, bool)| {
            copy.as_ref().is_none_or(|it| stored.revision > it.revision)
        };
        let Some((mut stored, known)) = stored.filter(is_newer) else {
            return copy.map(|in_force| Source {
                in_force,
                from: "from the copy",
                missing: None,
            });
        };
        stored.guarded.clone_from(&self.copies.guarded);
        let missing = match copy {
            _ if known => None,
            Some(older) => {
                stored.ids = older.ids;
                stored.quarantined = older.quarantined;
                stored.grants = older.grants;
                Some(format!(
                    "who was put into quarantine or released after revision {}",
                    older.revision
                ))
            }
            None => Some("who was in quarantine, and which rules are grants".to_owned()),
        };
        Some(Source {
            in_force: stored,
            from: "from the database",
            missing,
        })
    }

    /// Makes the database anew, and the copy.
    fn rebuild(
        &self,
        config: &Config,
        source: Option<Source>,
        report: &mut String,
    ) -> anyhow::Result<()> {
        let state_dir = &config.state_dir;
        let mut rebuild = Rebuild::begin(state_dir)?;
        if let Some(salvage) = self.salvage() {
            salvage.rows(|row| rebuild.keep(row))?;
        }
        let (in_force, kind) = match source {
            Some(source) => (source.in_force, "recover"),
            None => (Enforced::default(), LOST),
        };
        let seen = [
            Some(in_force.revision),
            in_force.owed.last().map(|owed| owed.revision),
            self.salvage().and_then(|it| it.readable.last().copied()),
            self.audit,
            self.judged_by,
        ];
        let number = seen.into_iter().flatten().max().unwrap_or_default() + 1;
        let reason = match kind {
            LOST => "recovered without the document that was in force".to_owned(),
            _ => format!(
                "recovered: what revision {} had in force, and {}",
                in_force.revision,
                self.history()
            ),
        };
        let last = Last {
            number,
            kind,
            actor: &actor(),
            reason: &reason,
        };
        let (in_force, aside) = rebuild.finish(in_force, &last)?;
        line(
            report,
            "done",
            &format!("the database was made anew, with revision {number}"),
        );
        if let Some(aside) = aside {
            let told = format!("what was there is in {}", aside.display());
            line(report, "aside", &told);
        }
        self.renew_copies(state_dir, (kind != LOST).then_some(&in_force))?;
        note(report, config, "Recover", &reason, number);
        Ok(())
    }

    /// Makes the copy anew.
    fn copy(
        &self,
        state_dir: &Path,
        source: Option<Source>,
        report: &mut String,
    ) -> anyhow::Result<()> {
        if let Some(aside) = set_aside(state_dir)? {
            let told = format!("what was there is also in {}", aside.display());
            line(report, "aside", &told);
        }
        let in_force = source.map(|it| it.in_force);
        self.renew_copies(state_dir, in_force.as_ref())?;
        line(report, "done", "the copy of what is in force was made anew");
        hand_over(state_dir)?;
        Ok(())
    }

    /// Removes the copies that can't be used, and writes one.
    fn renew_copies(&self, state_dir: &Path, in_force: Option<&Enforced>) -> anyhow::Result<()> {
        for problem in &self.copies.problems {
            remove(problem.path())?;
        }
        if let Some(in_force) = in_force {
            Copies::read(state_dir).0.write(in_force)?;
        }
        Ok(())
    }
}
