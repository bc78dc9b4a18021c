//! The journal: all events, on disk, across restarts and power cuts.
//!
//! Who records an event never waits. Events wait in a queue, at most a second, and are then written in one
//! transaction that is on the disk when it ends. What finds no room, and what can't be written for long, is
//! lost and counted.

mod file;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod write;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::file::File;
pub use self::read::{Order, Page};
use super::{event::Event, filter::Filter};
use crate::{
    config::Bounds,
    parts::{Part, Parts},
};

/// Most events that wait to be written.
const QUEUE: usize = 16_384;
/// How long an event waits at most, when the disk does not keep it waiting.
const EACH: Duration = Duration::from_secs(1);
/// After an error: how long until it is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How often old events are looked for while nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// How long who reads waits until what was recorded before is on disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// The journal. A handle: clones are the same journal.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    bounds: Bounds,
    queue: mpsc::Sender<Entry>,
    /// The other end of the queue, until somebody writes.
    waiting: Mutex<Option<mpsc::Receiver<Entry>>>,
    /// Whether it could not be written the last time that this was tried.
    is_broken: AtomicBool,
    lost: AtomicU64,
    fill: Mutex<Fill>,
}

/// What goes through the queue.
#[derive(Debug)]
enum Entry {
    Event(Arc<Event>),
    /// Somebody waits until all before it is on disk.
    Written(oneshot::Sender<()>),
}

/// How full the journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Events.
    pub events: u64,
    /// The first moment of which there is an event.
    pub oldest: Option<Timestamp>,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Events that had to go before their time since the daemon started, because there was no room.
    pub forgotten: u64,
}

impl Journal {
    /// The journal in a state directory. Nothing is read or written before [`Journal::keep`].
    pub fn new(directory: &Path, bounds: Bounds) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Self(Arc::new(Shared {
            path: directory.join("journal.db"),
            bounds,
            queue,
            waiting: Mutex::new(Some(waiting)),
            is_broken: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            fill: Mutex::default(),
        }))
    }

    /// Its bounds.
    pub fn bounds(&self) -> Bounds {
        self.0.bounds
    }

    /// Records an event. Never waits.
    pub(super) fn record(&self, event: Arc<Event>) {
        if self.0.queue.try_send(Entry::Event(event)).is_err() {
            self.lose(1);
        }
    }

    /// Events that are not in the journal, though they should be.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn lose(&self, count: u64) {
        self.0.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// How full it is.
    pub fn fill(&self) -> Fill {
        *self.0.fill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that was recorded before is on disk; false: that can't be waited for, because the
    /// journal can't be written or the disk is slow.
    pub async fn is_up_to_date(&self) -> bool {
        if self.0.is_broken.load(Ordering::Relaxed) {
            return false;
        }
        let (done, written) = oneshot::channel();
        let waits = async {
            let sent = self.0.queue.send(Entry::Written(done)).await;
            sent.is_ok() && written.await.is_ok()
        };
        timeout(PATIENCE, waits).await.unwrap_or(false)
    }

    /// The next events that pass a filter. Blocks.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn page(&self, filter: &Filter, page: Page) -> Result<Vec<Event>, rusqlite::Error> {
        read::page(&self.0.path, filter, page)
    }

    /// The other end of the queue, once.
    fn waiting(&self) -> Option<mpsc::Receiver<Entry>> {
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Writes what is recorded until told to stop, and then what is left. `trusts_clock` says whether the
    /// wall clock can be believed: by a wrong one all events would be old.
    pub async fn keep(
        self,
        parts: Parts,
        trusts_clock: impl Fn() -> bool + Send,
        stop: CancellationToken,
    ) {
        let Some(queue) = self.waiting() else {
            return;
        };
        let mut keeper = Keeper {
            journal: self,
            parts,
            queue,
            pending: VecDeque::new(),
            readers: Vec::new(),
            file: None,
            told_lost: 0,
        };
        let mut next = Instant::now();
        let mut upkeep = Instant::now();
        loop {
            let stops = stop.is_cancelled();
            let is_wanted = !keeper.pending.is_empty() || !keeper.readers.is_empty();
            let due = match keeper.readers.is_empty() {
                true if keeper.pending.is_empty() => upkeep,
                true => next,
                false => Instant::now(),
            };
            if stops {
                keeper.take_all();
            }
            if stops || due <= Instant::now() {
                let is_due = upkeep <= Instant::now();
                let until = (is_due && trusts_clock()).then(Timestamp::now);
                let Some(written) = keeper.write(until).await else {
                    return;
                };
                if stops {
                    return;
                }
                next = Instant::now() + if written { EACH } else { AGAIN };
                if is_due || !is_wanted {
                    upkeep = Instant::now() + IDLE;
                }
                continue;
            }
            let mut batch = Vec::new();
            tokio::select! {
                () = stop.cancelled() => {}
                _ = keeper.queue.recv_many(&mut batch, QUEUE) => keeper.take(batch),
                () = sleep_until(due) => {}
            }
        }
    }
}

/// What writes the journal.
struct Keeper {
    journal: Journal,
    parts: Parts,
    queue: mpsc::Receiver<Entry>,
    /// What is to be written.
    pending: VecDeque<Arc<Event>>,
    /// Who waits until it is.
    readers: Vec<oneshot::Sender<()>>,
    file: Option<File>,
    /// How many lost events the log has told of.
    told_lost: u64,
}

impl Keeper {
    fn take(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            match entry {
                Entry::Event(event) => self.pending.push_back(event),
                Entry::Written(reader) => self.readers.push(reader),
            }
        }
        let excess = self.pending.len().saturating_sub(QUEUE);
        self.pending.drain(..excess);
        self.journal.lose(excess as u64);
    }

    fn take_all(&mut self) {
        while let Ok(entry) = self.queue.try_recv() {
            self.take([entry]);
        }
    }

    /// Writes what is pending; with a time, forgets what is too old by then. Returns whether that
    /// succeeded; none: the runtime shuts down.
    async fn write(&mut self, now: Option<Timestamp>) -> Option<bool> {
        let (file, path, bounds) = (
            self.file.take(),
            self.journal.0.path.clone(),
            self.journal.0.bounds,
        );
        let mut pending = std::mem::take(&mut self.pending);
        let work = move || {
            let mut file = file;
            let written = file::write(&mut file, &path, bounds, pending.make_contiguous(), now);
            (file, pending, written)
        };
        let (file, pending, written) = spawn_blocking(work).await.ok()?;
        self.file = file;
        let readers = std::mem::take(&mut self.readers);
        let shared = &self.journal.0;
        match written {
            Ok(written) => {
                *shared.fill.lock().unwrap_or_else(PoisonError::into_inner) = written;
                shared.is_broken.store(false, Ordering::Relaxed);
                self.parts.works(Part::Journal);
                // Who no longer waits does not mind.
                for reader in readers {
                    let _ = reader.send(());
                }
                self.tell_lost();
                Some(true)
            }
            Err(error) => {
                shared.is_broken.store(true, Ordering::Relaxed);
                self.parts.breaks(Part::Journal, &error, Some(AGAIN));
                self.pending = pending;
                Some(false)
            }
        }
    }

    fn tell_lost(&mut self) {
        let lost = self.journal.lost();
        if lost != self.told_lost {
            let since = lost - self.told_lost;
            tracing::warn!(
                since,
                "events are not in the journal: it could not be written in time"
            );
            self.told_lost = lost;
        }
    }
}
