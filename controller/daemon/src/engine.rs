//! The one who changes things: takes documents, puts them in force, keeps hooks on the interfaces
//! that exist.
//!
//! An [`Engine`] owns the store and the datapath and lives on a thread of its own, because both
//! block. Others hold a [`Handle`](crate::thread::Handle) and send it what to do; one thing is done at a time.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use tokio::sync::watch;
use tracing::{info, warn};
use wardline_datapath::{
    Datapath, Hook, error::AttachError, fast_forward, fault, offload, reader::Fill,
};
use wardline_ebpf::abi::Port;
use wardline_policy::{
    compile, document,
    failsafe::Failsafe,
    intent::{self, Attach, Intent},
    inventory::{Inventory, Link},
    numbers::{self, numbered},
    snapshot::Snapshot,
    tables::Tables,
    words::problem::Problem,
};
use wardline_proto::v1;

pub mod change;
pub mod grants;
pub mod pending;
pub(crate) mod prepare;
pub mod refusal;

use self::{
    pending::Pending,
    prepare::{Prepared, missing},
    refusal::Refusal,
};
use crate::{config::Config, store::Store, telemetry::events::Events};

/// The store, the datapath and what is in force.
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) datapath: Datapath,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) events: Events,
    /// The change that waits for its confirmation.
    pub(crate) pending: Option<Pending>,
    pub(crate) ports: Vec<v1::PortStatus>,
    /// Whether a document has been taken apart since memory was last given back.
    pub(crate) outgrown: bool,
    snapshots: watch::Sender<Arc<Snapshot>>,
}

impl Engine {
    /// Loads the datapath and takes over what is stored and pinned.
    ///
    /// # Errors
    ///
    /// When the store or the kernel refuses.
    pub fn start(config: Config, inventory: Inventory) -> Result<Self, Refusal> {
        let store = Store::open(&config.state_dir)?;
        let pins: &Path = &config.pin_dir;
        let mut datapath = Datapath::open(Some(pins), &config.limits, &config.timeouts)?;
        let failsafe: Arc<[_]> = config.failsafe.iter().flat_map(Failsafe::entries).collect();
        datapath.set_failsafe(&failsafe)?;
        let clock = datapath.reader().clock()?;
        let inventory = Arc::new(inventory);
        let mut nothing = Snapshot::new(
            0,
            v1::Policy::default(),
            Intent::default(),
            Arc::clone(&inventory),
            store.quarantined().clone(),
            Arc::clone(store.ids()),
            Tables::default(),
            clock,
            None,
        );
        nothing.failsafe = failsafe;
        let (snapshots, _) = watch::channel(Arc::new(nothing));
        let pending = match store
            .meta(Pending::KEY)?
            .as_deref()
            .map(str::parse::<Pending>)
        {
            Some(Ok(pending)) => Some(pending.taken_over(clock.now)),
            Some(Err(_)) => {
                return Err(store.damaged("it tells of no known pending change").into());
            }
            None => None,
        };
        let mut engine = Self {
            config,
            store,
            datapath,
            inventory,
            events: Events::new(snapshots.subscribe()),
            pending,
            ports: Vec::new(),
            outgrown: false,
            snapshots,
        };
        // A document without a version is what is in force before the first.
        if let Some(stored) = engine
            .store
            .latest()?
            .filter(|stored| stored.policy.version != 0)
        {
            let revision = stored.revision.revision;
            let prepared = engine.prepare(Arc::new(stored.policy))?;
            engine.take_force(revision, prepared)?;
            info!(revision, "took over");
        }
        engine.do_what_is_due()?;
        fault::started();
        Ok(engine)
    }

    /// Who may always reach the router.
    pub(crate) fn failsafe(&self) -> &[Failsafe] {
        &self.config.failsafe
    }

    /// What happens.
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// What is in force, now and from now on.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    /// The datapath, for what reads it and nothing else.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Puts hooks and tables right, whether interfaces or addresses changed or not: a hook may have
    /// been taken off or become free, and an offload switched.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_inventory(&mut self, inventory: Inventory) -> Result<(), Refusal> {
        if inventory != *self.inventory {
            return self.catch_up(inventory);
        }
        let current = self.snapshot();
        if current.revision != 0 {
            self.guard(&current);
        }
        Ok(())
    }

    /// Puts hooks and tables right if interfaces or addresses changed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn catch_up(&mut self, inventory: Inventory) -> Result<(), Refusal> {
        if inventory == *self.inventory {
            return Ok(());
        }
        let current = self.snapshot();
        self.inventory = Arc::new(inventory);
        if current.revision == 0 {
            return Ok(());
        }
        let tables = compile::compile(
            &current.intent,
            &self.inventory,
            &current.ids,
            &current.quarantined,
            &current.clock,
        );
        let prepared = Prepared {
            policy: Arc::clone(&current.policy),
            intent: Arc::clone(&current.intent),
            ids: Arc::clone(&current.ids),
            tables: Arc::new(tables),
            clock: current.clock,
        };
        self.take_force(current.revision, prepared)
    }

    /// Ends flows that have timed out, also in buckets where no packet comes by, and does what else
    /// is due. To be called once a second.
    ///
    /// # Errors
    ///
    /// When the kernel or the store refuses; it is tried again the next time.
    pub fn sweep(&mut self) -> Result<(), Refusal> {
        self.do_what_is_due()?;
        let buckets = self.datapath.reader().buckets();
        Ok(self.datapath.sweep((buckets / 4).clamp(64, 65_536))?)
    }

    /// Has next hops be looked up again: routes or neighbours have changed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn routes_changed(&mut self) -> Result<(), Refusal> {
        Ok(self.datapath.routes_changed()?)
    }

    /// Says for a second that [`routes_changed`](Self::routes_changed) is called after every change.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn vouch(&mut self) -> Result<(), Refusal> {
        Ok(self.datapath.vouch()?)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.snapshots.send_replace(Arc::new(snapshot));
    }

    /// What is in force before the first document: nothing.
    pub(crate) fn prepare_nothing(&mut self) -> Result<Prepared, Refusal> {
        Ok(Prepared {
            policy: Arc::default(),
            intent: Arc::default(),
            ids: Arc::clone(&self.snapshot().ids),
            tables: Arc::default(),
            clock: self.datapath.reader().clock()?,
        })
    }

    /// Everything that can be refused, before anything changes.
    pub(crate) fn prepare(&mut self, policy: Arc<v1::Policy>) -> Result<Prepared, Refusal> {
        self.outgrown = true;
        let current = self.snapshot();
        let clock = self.datapath.reader().clock()?;
        let limits = &self.config.limits;
        let excess = document::excess(&policy, limits);
        if !excess.is_empty() {
            return Err(Refusal::TooLarge(excess));
        }
        let mut intent =
            Intent::from_policy(&policy, limits, clock.now).map_err(Refusal::Invalid)?;
        let quarantined = self.store.quarantined();
        intent.warnings.extend(missing(&intent, quarantined));
        let ids = if numbers::is_numbered(&intent, &current.ids, limits) {
            Arc::clone(&current.ids)
        } else {
            let ids = numbers::number(&intent, &current.ids, limits);
            Arc::new(ids.map_err(Refusal::TooLarge)?)
        };
        let tables = compile::compile(&intent, &self.inventory, &ids, quarantined, &clock);
        let full: Vec<Problem> = self
            .datapath
            .reader()
            .needs(&tables)
            .into_iter()
            .filter(|fill| fill.used > fill.max)
            .map(|Fill { name, used, max }| Problem {
                path: name.to_owned(),
                message: format!("the policy needs {used} {name}, but the table holds {max}"),
            })
            .collect();
        if full.is_empty() {
            Ok(Prepared {
                policy,
                intent: Arc::new(intent),
                ids,
                tables: Arc::new(tables),
                clock,
            })
        } else {
            Err(Refusal::TooLarge(full))
        }
    }

    /// Makes tables the ones that judge, then puts hooks where they belong.
    pub(crate) fn take_force(&mut self, revision: u64, prepared: Prepared) -> Result<(), Refusal> {
        let Prepared {
            policy,
            intent,
            ids,
            tables,
            clock,
        } = prepared;
        let current = self.snapshot();
        self.datapath.put(revision, &tables)?;
        fault::point("judges");
        let renumbered = !Arc::ptr_eq(&ids, &current.ids) && current.revision != 0;
        let fresh = ids.iter().filter(|(key, _)| {
            renumbered && key.0 == numbered::RULE && !current.ids.contains_key(key)
        });
        for (_, number) in fresh {
            self.datapath.reset_rule(*number)?;
        }
        let mut snapshot = Snapshot::new(
            revision,
            policy,
            intent,
            Arc::clone(&self.inventory),
            self.store.quarantined().clone(),
            ids,
            tables,
            clock,
            Some(&current),
        );
        snapshot.failsafe = Arc::clone(&current.failsafe);
        self.guard(&snapshot);
        self.publish(snapshot);
        Ok(())
    }

    /// Puts hooks on the ports that exist, and takes them off everything else.
    fn guard(&mut self, snapshot: &Snapshot) {
        let mut statuses = Vec::new();
        let mut forwards = BTreeMap::new();
        for (ifindex, entry) in &snapshot.tables.ports {
            if entry.flags & Port::GUARDED == 0 {
                continue;
            }
            let Some(link) = self.inventory.links.get(ifindex).cloned() else {
                continue;
            };
            let Some(port) = snapshot.intent.port_for(&link.name) else {
                continue;
            };
            let (attached, reason) = self.guard_port(&link, port);
            if port.fast_forward {
                forwards.insert(*ifindex, attached == v1::Attached::Xdp);
            }
            let status = v1::PortStatus {
                zone: snapshot
                    .name(numbered::ZONE, u32::from(entry.zone))
                    .to_owned(),
                interface: link.name,
                attached: attached.into(),
                reason,
                ifindex: *ifindex,
                fast_forward: false,
            };
            if attached == v1::Attached::None && !self.ports.contains(&status) {
                warn!(
                    port = status.interface,
                    reason = status.reason,
                    "port is not guarded"
                );
            }
            statuses.push(status);
        }
        let wanted = |index: &u32| {
            snapshot
                .tables
                .ports
                .get(index)
                .is_some_and(|port| port.flags & Port::GUARDED != 0)
        };
        match self.datapath.attached() {
            Ok(attached) => {
                for index in attached.into_iter().filter(|index| !wanted(index)) {
                    if let Err(error) = self.datapath.attach(index, &[]) {
                        warn!(ifindex = index, %error, "hooks stay on an interface");
                    }
                }
            }
            Err(error) => warn!(%error, "hooks may stay on interfaces that are no ports"),
        }
        // After the hooks: XDP on a port is what makes its driver take frames from XDP.
        let roads = fast_forward::roads(&forwards, &self.inventory, &snapshot.tables);
        if let Err(error) = self.datapath.set_forwarding(&roads.open) {
            warn!(%error, "what may be forwarded in the driver is not as it should be");
        }
        for status in &mut statuses {
            status.fast_forward =
                forwards.contains_key(&status.ifindex) && roads.open.contains_key(&status.ifindex);
            if let Some(why) = roads.refused.get(&status.ifindex) {
                let and = if status.reason.is_empty() { "" } else { "; " };
                status.reason += &format!("{and}no fast-forward: {why}");
            }
        }
        statuses.sort_by(|a, b| a.interface.cmp(&b.interface));
        self.ports = statuses;
    }

    /// Attaches a port the best way that its policy and its interface allow; says which, and why.
    fn guard_port(&mut self, link: &Link, port: &intent::Port) -> (v1::Attached, String) {
        const TC: &[Hook] = &[Hook::TcIngress, Hook::TcEgress];
        let ifindex = link.index;
        let outside = offload::tags_outside(link);
        let tagged = !port.vlans.is_empty();
        // Where no VLAN is, what carries a tag is dropped: XDP does it for those that it sees.
        let xdp: &[Hook] = match &outside {
            Some(_) if !tagged => &[Hook::Tags, Hook::Xdp, Hook::TcEgress],
            _ => &[Hook::Xdp, Hook::TcEgress],
        };
        let blind = outside.filter(|_| tagged);
        let datapath = &mut self.datapath;
        // Then a program that appears on its XDP hook is no reason to stop guarding it.
        let at_tc = TC
            .iter()
            .all(|hook| datapath.is_attached(ifindex, *hook).unwrap_or(false));
        let mut attach = |hooks: &[Hook]| datapath.attach(ifindex, hooks);
        let failed = match (port.attach, blind) {
            (Attach::Auto, Some(blind)) => match attach(TC) {
                Ok(()) => return (v1::Attached::Tc, blind),
                Err(error) => error.to_string(),
            },
            (Attach::Auto, None) => match attach(xdp) {
                Ok(()) => return (v1::Attached::Xdp, String::new()),
                Err(taken @ AttachError::Taken(_)) if !at_tc => taken.to_string(),
                Err(no_xdp) => match attach(TC) {
                    Ok(()) => return (v1::Attached::Tc, format!("no XDP: {no_xdp}")),
                    Err(error) => error.to_string(),
                },
            },
            (Attach::Tc, _) => match attach(TC) {
                Ok(()) => return (v1::Attached::Tc, "asked for".to_owned()),
                Err(error) => error.to_string(),
            },
            (Attach::Xdp, Some(blind)) => blind,
            (Attach::Xdp, None) => match attach(xdp) {
                Ok(()) => return (v1::Attached::Xdp, "asked for".to_owned()),
                Err(error) => error.to_string(),
            },
        };
        // Half a guard judges replies without their requests.
        match self.datapath.attach(ifindex, &[]) {
            Ok(()) => (v1::Attached::None, failed),
            Err(error) => (v1::Attached::None, format!("{failed}; {error}")),
        }
    }

    /// What to say of ports that are not guarded.
    pub(crate) fn unguarded(&self) -> impl Iterator<Item = String> {
        self.ports
            .iter()
            .filter(|port| port.attached() == v1::Attached::None)
            .map(|port| format!("port {} is not guarded: {}", port.interface, port.reason))
    }
}
