//! What can be known of the time before the start, and from where.

use tracing::warn;

use super::offline::judged_by;
use crate::{
    access::audit::Audit,
    config::Config,
    engine::start::Before,
    store::{
        Store,
        enforced::{Copies, Found},
        error::StoreError,
        folder,
        history::History,
    },
};

/// What was found on the disk.
pub(super) struct Look {
    /// For the engine.
    pub(super) before: Before,
    /// The copies, to be written from now on.
    pub(super) copies: Copies,
    /// The database, if the copy could not be used and it was opened for that.
    pub(super) store: Option<Store>,
    /// What tells that there was a history; none: nothing does, or a copy can be used, so that an
    /// empty database is made anew from it.
    pub(super) evidence: Option<String>,
}

/// Looks at the copy first. Only when there is none that can be used, the database is opened for
/// what was in force. Blocks.
///
/// # Errors
///
/// When another daemon uses the database.
pub(super) fn look(config: &Config) -> Result<Look, StoreError> {
    let (copies, found) = Copies::read(&config.state_dir);
    for problem in &found.problems {
        warn!(%problem, "a copy of what was in force can't be used");
    }
    let history = History::away(&config.state_dir);
    let guarded = found.guarded.clone();
    if let Err(error) = folder::check(&config.state_dir) {
        // The names only close ports.
        return Ok(Look {
            before: Before {
                enforced: None,
                lost: Some(error.to_string()),
                guarded,
                history,
            },
            copies,
            store: None,
            evidence: None,
        });
    }
    if let Some(enforced) = found.enforced {
        return Ok(Look {
            before: Before {
                enforced: Some(enforced),
                lost: None,
                guarded,
                history,
            },
            copies,
            store: None,
            evidence: None,
        });
    }
    let evidence = evidence(config, &found);
    if !guarded.is_empty() && history.has_file() {
        // Closed ports can wait for a large database, and open ones must not.
        return Ok(Look {
            before: Before {
                enforced: None,
                lost: Some(
                    "there is no copy of what was in force, until the database is read".to_owned(),
                ),
                guarded,
                history,
            },
            copies,
            store: None,
            evidence,
        });
    }
    let (enforced, store, lost) = match Store::open_known(&history, evidence.as_deref()) {
        Ok(store) => match store.enforced() {
            Ok(None) => {
                let evidence = evidence.as_deref();
                let lost = evidence.map(|it| format!("the database has no document, and {it}"));
                (None, Some(store), lost)
            }
            Ok(enforced) => (enforced, Some(store), None),
            Err(error) => (None, Some(store), Some(error.to_string())),
        },
        Err(in_use @ StoreError::InUse(_)) => return Err(in_use),
        Err(error) => {
            // A new router has nothing to lose.
            let lost = evidence.is_some() || history.has_file();
            (None, None, lost.then(|| error.to_string()))
        }
    };
    Ok(Look {
        before: Before {
            enforced,
            lost: lost.map(|why| format!("there is no copy of what was in force, and {why}")),
            guarded,
            history,
        },
        copies,
        store,
        evidence,
    })
}

/// What tells that this router had a policy, although neither copy nor database may have it.
fn evidence(config: &Config, found: &Found) -> Option<String> {
    if let Some(revision) = Audit::tells_of(&config.state_dir) {
        return Some(format!("the audit tells of revision {revision}"));
    }
    if !found.guarded.is_empty() {
        let names: Vec<&str> = found.guarded.iter().map(String::as_str).collect();
        return Some(format!("ports were guarded: {}", names.join(", ")));
    }
    if let Some(revision) = judged_by(&config.pin_dir) {
        return Some(format!("the kernel judges by revision {revision}"));
    }
    let damaged = found.problems.first();
    damaged.map(|problem| format!("there is a damaged copy of what was in force: {problem}"))
}
