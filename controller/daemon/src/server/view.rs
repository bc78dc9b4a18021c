//! What calls read, on any thread: never by way of the engine, so that reading delays no change.

use std::sync::Arc;

use tokio::{sync::watch, task::spawn_blocking};
use tonic::Status;
use wardline_datapath::Reader;
use wardline_policy::{failsafe::Failsafe, limits::Limits};

use crate::{
    engine::{refusal::Refusal, state::State},
    telemetry::events::Events,
};

/// What is in force, and what the kernel says.
#[derive(Clone)]
pub struct View {
    /// The router's name.
    pub router: String,
    /// How much the tables hold.
    pub limits: Limits,
    /// Who may always reach the router.
    pub failsafe: Arc<[Failsafe]>,
    /// What the engine publishes.
    pub states: watch::Receiver<State>,
    /// The kernel's maps.
    pub reader: Arc<Reader>,
    /// What happened.
    pub events: Events,
}

impl View {
    /// What is in force.
    pub(super) fn state(&self) -> State {
        self.states.borrow().clone()
    }

    /// Reads on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Status> {
        let view = self.clone();
        let read = spawn_blocking(move || read(&view));
        let read = read.await.map_err(|error| {
            Status::internal(format!("the answer could not be put together: {error}"))
        })?;
        Ok(read?)
    }
}
