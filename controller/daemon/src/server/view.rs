//! What calls read, on any thread: never by way of the engine, so that reading delays no change.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::spawn_blocking,
};
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
    /// The plans that may be made at the same time.
    pub plans: Plans,
}

/// Places for those who make a plan: each may need as much memory as the policy in force.
#[derive(Clone)]
pub struct Plans(Arc<Semaphore>);

impl Default for Plans {
    fn default() -> Self {
        // Two, so that one large plan does not keep all others waiting.
        const AT_ONCE: usize = 2;
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Plans {
    /// Waits for a place. It is held for as long as the plan is being made, also when its client has
    /// left.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.0).acquire_owned().await;
        place.map_err(|closed| Status::internal(closed.to_string()))
    }
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
