//! Puts hooks on interfaces as soon as they appear, also while the engine compiles a document or fills
//! tables. Until the tables have an entry for such an interface, its hooks drop everything.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::debug;
use wardline_datapath::attach::Hooks;
use wardline_policy::{
    intent::{Intent, Port},
    inventory::Link,
};

use super::{
    hooks::{attach, observes, way},
    lost,
    state::{State, guards_nothing},
};

/// How long an interface may be missing in lists, or have another name there, after it was met.
const UNLISTED: Duration = Duration::from_secs(5);

/// Guards what appears, on any thread.
#[derive(Clone)]
pub struct HooksFirst {
    hooks: Hooks,
    states: watch::Receiver<State>,
    /// The ports that were met, by index: their names, and when. A list of interfaces that is older
    /// must not cost them their hooks.
    met: Arc<Mutex<BTreeMap<u32, (String, Instant)>>>,
}

impl HooksFirst {
    pub(super) fn new(hooks: Hooks, states: watch::Receiver<State>) -> Self {
        Self {
            hooks,
            states,
            met: Arc::default(),
        }
    }

    /// What attaches.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Puts hooks on interfaces that have appeared or have another name. What can't be done here is
    /// tried again, and told, when the tables are put right for them.
    pub fn meet(&self, links: &[Link]) {
        let (snapshot, lost_ports) = {
            let state = self.states.borrow();
            (Arc::clone(&state.snapshot), Arc::clone(&state.lost_ports))
        };
        if guards_nothing(&snapshot) {
            lost::shut_fresh(&self.hooks, links.iter().cloned(), &lost_ports);
            return;
        }
        let ports: Vec<(&Link, &Port)> = links
            .iter()
            .filter_map(|link| Some((link, dropping_port(&snapshot.intent, link)?)))
            .collect();
        {
            // Before the hooks are on, so that nobody takes them for hooks of no port.
            let (mut met, now) = (self.met(), Instant::now());
            met.retain(|_, (_, met)| met.elapsed() < UNLISTED);
            for link in links {
                met.remove(&link.ifindex);
            }
            let names = ports
                .iter()
                .map(|(link, _)| (link.ifindex, (link.name.clone(), now)));
            met.extend(names);
        }
        if ports.is_empty() {
            return;
        }
        self.hooks.look();
        let way = way(ports.len());
        for (link, port) in ports {
            if let Err(error) = attach(&self.hooks, way, link, port) {
                debug!(port = link.name, error, "not guarded at once");
            }
        }
    }

    /// Whether an interface was met lately under this name.
    pub(super) fn has_met(&self, link: &Link) -> bool {
        let met = self.met();
        let name = met
            .get(&link.ifindex)
            .filter(|it| it.1.elapsed() < UNLISTED);
        name.is_some_and(|(name, _)| *name == link.name)
    }

    /// Whether a list of interfaces is older than what was met: it lacks the interface, or has another
    /// name for it.
    pub(super) fn is_newer(&self, ifindex: u32, listed: Option<&str>) -> bool {
        let met = self.met();
        let name = met.get(&ifindex).filter(|it| it.1.elapsed() < UNLISTED);
        name.is_some_and(|(name, _)| Some(name.as_str()) != listed)
    }

    fn met(&self) -> MutexGuard<'_, BTreeMap<u32, (String, Instant)>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The port of an interface, unless everything is observed there: then nothing may be dropped until
/// the tables are right.
fn dropping_port<'a>(intent: &'a Intent, link: &Link) -> Option<&'a Port> {
    let port = intent.port_for(&link.name)?;
    (!observes(intent, port)).then_some(port)
}
