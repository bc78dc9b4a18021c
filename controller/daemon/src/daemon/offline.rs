//! What `--restore` and `--recover` have in common: both work on a router whose daemon is stopped.

use std::{fmt::Write as _, path::Path};

use anyhow::bail;
use wardline_datapath::pinned;
use wardline_proto::audit::Record;

use crate::{
    access::audit::{Audit, OK},
    config::Config,
    server::serve,
    store::rebuild::{actor, hand_over},
};

/// # Errors
///
/// When a daemon answers.
pub(super) async fn is_stopped(config: &Config) -> anyhow::Result<()> {
    let socket = &config.api.socket;
    if serve::is_served(socket).await {
        bail!(
            "a daemon answers on {}; stop it first: what is attached goes on judging meanwhile",
            socket.display()
        );
    }
    Ok(())
}

/// The revision by which the kernel judges, as far as that can be seen.
pub(super) fn judged_by(pin_dir: &Path) -> Option<u64> {
    pinned::judged_by(pin_dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "by what the kernel judges can't be seen");
        None
    })
}

/// Records what was done in the audit, and hands the files over to the daemon. What can't be done of
/// that is added to the report: the rest is done.
pub(super) fn note(report: &mut String, config: &Config, call: &str, message: &str, after: u64) {
    let state_dir = &config.state_dir;
    let audit = Audit::closed(state_dir, config.audit);
    let opened = audit.open().map_err(|error| error.to_string());
    audit.keep(Record {
        actor: actor(),
        address: "local".to_owned(),
        role: "admin".to_owned(),
        call: call.to_owned(),
        outcome: OK.to_owned(),
        message: message.to_owned(),
        after: Some(after),
        ..Record::default()
    });
    let kept = opened.and_then(|()| audit.ready().map_err(|error| error.to_string()));
    if let Err(error) = kept {
        line(
            report,
            "warning",
            &format!("the audit has no record of this: {error}"),
        );
    }
    if let Err(error) = hand_over(state_dir) {
        let told = format!("the files may not be the daemon's: {error}");
        line(report, "warning", &told);
    }
}

/// Adds a line to a report.
pub(super) fn line(report: &mut String, about: &str, text: &str) {
    // Writing to a string can't fail.
    let _ = writeln!(report, "{about:<10} {text}");
}
