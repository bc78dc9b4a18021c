//! What calls read, on any thread. It does not involve the engine, so reading delays no change.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::spawn_blocking,
};
use tonic::Status;
use tracing::warn;
use wardline_datapath::{Reader, error::DatapathError};
use wardline_policy::{document::Document, failsafe::Failsafe, limits::Limits};

use crate::{
    config::mud::Mud,
    engine::{
        prepare::{Compiled, Fit},
        refusal::Refusal,
        state::State,
    },
    facts::Known,
    parts::Parts,
    store::{history::History, vendors::Vendors},
    telemetry::events::Events,
};

/// The state in force, and the kernel's counters and tables.
#[derive(Clone)]
pub struct View {
    /// The router's name.
    pub router: String,
    /// How much the tables hold.
    pub limits: Limits,
    /// Hosts that may always reach the router.
    pub failsafe: Arc<[Failsafe]>,
    /// What the site says about MUD files.
    pub mud: Arc<Mud>,
    /// The states that the engine publishes.
    pub states: watch::Receiver<State>,
    /// The kernel's maps.
    pub reader: Arc<Reader>,
    /// The parts that do not work.
    pub parts: Parts,
    /// The events.
    pub events: Events,
    /// The accepted revisions.
    pub history: History,
    /// What is known of MACs.
    pub known: Known,
    /// Who made them.
    pub vendors: Vendors,
    /// Limits how many documents are compiled at the same time to be put in force.
    pub changes: Places,
    /// Limits how many plans are made at the same time.
    pub plans: Places,
    /// Limits how many earlier documents are read at the same time.
    pub documents: Places,
    /// Limits how many pages of the journal are read at the same time.
    pub journals: Places,
    /// Limits how many backups are made at the same time.
    pub backups: Places,
}

/// Places for calls that need much memory, up to as much as the policy in force needs.
#[derive(Clone)]
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        // Two, so that one large document does not keep all other calls waiting.
        const AT_ONCE: usize = 2;
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Places {
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

    /// Compiles a document that is to be put in force. One that can't be compiled is refused by the
    /// engine, which knows whether it takes changes at all.
    pub(super) async fn compile(&self, policy: Arc<Document>) -> Result<Option<Compiled>, Status> {
        let place = self.changes.place().await?;
        let compiled = self.read(move |view| {
            let current = view.state().snapshot;
            let compiled =
                Compiled::of(policy, &current, &view.limits, &view.reader, Fit::AllPorts);
            drop(place);
            Ok(compiled.ok())
        });
        compiled.await
    }

    /// Keeps what the kernel knows of learned addresses true. Blocks.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn keep_learned(&self) -> Result<(), DatapathError> {
        let ports = self.state().snapshot;
        self.reader.keep_learned(ports.tables.ports.keys().copied())
    }

    /// Reads on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Status> {
        let view = self.clone();
        let read = spawn_blocking(move || read(&view));
        Ok(read.await.map_err(failed)??)
    }

    /// Waits for a place, then reads on a thread that everything else goes before: what is read here takes
    /// long, and packets, changes and other calls may not wait for it. Once the client has left the answer
    /// is no longer wanted; reading asks for that and ends with [`Refusal::Unwanted`].
    pub(super) async fn read_in<T: Send + 'static>(
        &self,
        places: &Places,
        read: impl FnOnce(&Self, &dyn Fn() -> bool) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Status> {
        let place = places.place().await?;
        let view = self.clone();
        // When the client leaves, or its deadline passes, this call is dropped and `answered` with it.
        let (answer, answered) = oneshot::channel();
        let work = move || {
            give_way();
            let read = read(&view, &|| !answer.is_closed());
            drop(place);
            // An error means that the client has left.
            let _ = answer.send(read);
        };
        let thread = std::thread::Builder::new().name("reading".to_owned());
        thread.spawn(work).map_err(failed)?;
        Ok(answered.await.map_err(failed)??)
    }
}

/// The answer could not be put together.
fn failed(error: impl std::error::Error) -> Status {
    Status::internal(format!("the answer could not be put together: {error}"))
}

/// Lets every other thread of the router go before this one.
fn give_way() {
    const NICE: i32 = 15;
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        warn!(%error, "a thread that reads much has the priority of all others");
    }
}
