//! Sends a backup.

use jiff::Timestamp;
use tokio::{sync::mpsc, task::spawn_blocking};
use tonic::Status;
use wardline_proto::{backup::Summary, v1};

use super::view::View;
use crate::{
    access::audit::Audit,
    engine::refusal::Refusal,
    memory::give_back,
    store::{backup, enforced::Enforced},
};

/// Most bytes of a message.
const PIECE: usize = 64 << 10;
/// Most messages that wait for the client.
const WAITING: usize = 16;

impl View {
    /// Makes a backup while the client reads it. Changes wait for none of it.
    ///
    /// # Errors
    ///
    /// When there is no policy in force.
    pub(super) async fn backup(
        &self,
        audit: &Audit,
    ) -> Result<mpsc::Receiver<Result<v1::BackupPiece, Status>>, Status> {
        let place = self.backups.place().await?;
        let in_force = self.state().enforced().ok_or_else(|| {
            Status::failed_precondition("no policy is in force, so there is nothing to back up")
        })?;
        let summary = self.summary(&in_force, audit);
        let history = self.history.clone();
        let (send, receive) = mpsc::channel(WAITING);
        spawn_blocking(move || {
            let _place = place;
            // When the client disconnects, this ends with its next piece.
            let told = |bytes: Vec<u8>| {
                let mut pieces = bytes.chunks(PIECE).map(<[u8]>::to_vec);
                pieces.all(|data| send.blocking_send(Ok(v1::BackupPiece { data })).is_ok())
            };
            if let Err(error) = backup::make(&history, summary, &in_force, told) {
                let _ = send.blocking_send(Err(Refusal::Store(error).into()));
            }
            give_back();
        });
        Ok(receive)
    }

    fn summary(&self, in_force: &Enforced, audit: &Audit) -> Summary {
        let devices = in_force
            .quarantined
            .device_names(&self.state().snapshot.intent);
        Summary {
            router: self.router.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: Timestamp::now().to_string(),
            revision: in_force.revision,
            audit_head: audit
                .head()
                .map(|head| head.to_string())
                .unwrap_or_default(),
            quarantined_devices: devices.into_iter().collect(),
            quarantined_ports: in_force.quarantined.ports().cloned().collect(),
            pending: in_force.pending.is_some(),
        }
    }
}
