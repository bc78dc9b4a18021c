//! The thread of the engine, and how other threads call it.

use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::{engine::Engine, memory::give_back};

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// A handle for calling the engine.
#[derive(Clone)]
pub struct Handle {
    jobs: mpsc::Sender<Job>,
}

/// The engine has stopped.
#[derive(Debug, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

impl Handle {
    /// Runs a job in the engine, and waits for the answer.
    ///
    /// # Errors
    ///
    /// When the engine has stopped.
    pub async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |engine| {
            // When the caller's deadline has passed the answer is lost, but the job is done.
            let _ = answer.send(job(engine));
        });
        self.jobs.send(job).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

/// Runs an engine on its own thread until every handle is dropped.
///
/// # Errors
///
/// When the thread can't be started.
pub fn run(mut engine: Engine) -> std::io::Result<(Handle, std::thread::JoinHandle<()>)> {
    let (jobs, mut waiting) = mpsc::channel::<Job>(64);
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut engine);
                // After the answer, so that the caller does not wait for it.
                if let Err(error) = engine.finish_change() {
                    error!(%error, "the grace period of the last change could not be waited out");
                }
                if engine.has_read_a_document() {
                    give_back();
                }
            }
        })?;
    Ok((Handle { jobs }, thread))
}
