//! The one who changes things: takes documents, puts them in force, keeps hooks on the interfaces
//! that exist.
//!
//! An [`Engine`] owns the store and the datapath and lives on a thread of its own, because both
//! block. Others hold a [`Handle`] and send it what to do; one thing is done at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};
use wardline_ebpf::abi::{Counter, Port, Reason, gauge, state};
use wardline_ebpf::{abi, flows};
use wardline_proto::v1;

use crate::{
    compile::{self, Clock, Tables, numbered},
    config::Config,
    datapath::{Datapath, DatapathError, Fill, Hook},
    intent::{self, Attach, Intent, Problem},
    inventory::{Inventory, Link},
    links::AttachError,
    offload, plan,
    snapshot::Snapshot,
    store::{self, Ids, NewRevision, Store, StoreError},
};

/// Why a change was refused. What was in force still is.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The document has problems.
    #[error("the document has {} problems", .0.len())]
    Invalid(Vec<Problem>),
    /// The document does not fit; each with numbers.
    #[error("the policy does not fit the tables")]
    TooLarge(Vec<Problem>),
    /// The change was made from another revision than the one in force.
    #[error("the change was made from revision {base}, but revision {current} is in force")]
    Stale {
        /// The revision that the caller knew.
        base: u64,
        /// The revision in force.
        current: u64,
    },
    /// A revision that is not there.
    #[error("there is no revision {0}")]
    NoRevision(u64),
    /// The store did not keep the change.
    #[error("the change could not be kept: {0}")]
    Store(#[from] StoreError),
    /// The kernel did not take the change.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

/// Who makes a change, and why.
#[derive(Clone, Debug, Default)]
pub struct Author {
    /// Who.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: String,
    /// The request's id.
    pub request_id: String,
    /// The call: apply, edit, rollback …
    pub kind: &'static str,
}

/// A change that took force.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its revision.
    pub revision: u64,
    /// The revision that was in force before.
    pub parent: u64,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

/// The store, the datapath and what is in force.
pub struct Engine {
    config: Config,
    store: Store,
    datapath: Datapath,
    inventory: Inventory,
    snapshots: watch::Sender<Arc<Snapshot>>,
    ports: Vec<v1::PortStatus>,
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
        let clock = datapath.clock()?;
        let (snapshots, _) = watch::channel(Arc::new(Snapshot::new(
            0,
            v1::Policy::default(),
            Intent::default(),
            inventory.clone(),
            BTreeSet::new(),
            Ids::new(),
            Tables::default(),
            clock,
        )));
        let mut engine = Self {
            config,
            store,
            datapath,
            inventory,
            snapshots,
            ports: Vec::new(),
        };
        // A document without a version is what is in force before the first.
        if let Some(stored) = engine
            .store
            .latest()?
            .filter(|stored| stored.policy.version != 0)
        {
            let revision = stored.revision.revision;
            let prepared = engine.prepare(&stored.policy)?;
            engine.take_force(revision, stored.policy, prepared)?;
            info!(revision, "took over");
        }
        Ok(engine)
    }

    /// What is in force, now and from now on.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.subscribe()
    }

    /// The datapath, for what reads it and nothing else.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Puts a document in force.
    ///
    /// # Errors
    ///
    /// Why it was refused.
    pub fn apply(
        &mut self,
        policy: v1::Policy,
        base: u64,
        author: &Author,
    ) -> Result<Applied, Refusal> {
        let current = self.snapshot();
        if base != 0 && base != current.revision {
            return Err(Refusal::Stale {
                base,
                current: current.revision,
            });
        }
        let prepared = self.prepare(&policy)?;
        let mut warnings = prepared.intent.warnings.clone();
        let new = NewRevision {
            parent: current.revision,
            time: Timestamp::now(),
            actor: &author.actor,
            reason: &author.reason,
            kind: author.kind,
            request_id: &author.request_id,
            policy: &policy,
            meta: &[],
        };
        let revision = self.store.append(&new, &prepared.ids)?;
        if let Err(refusal) = self.take_force(revision, policy, prepared) {
            error!(%refusal, revision, "the kernel did not take a stored revision");
            // What is stored last is what the next daemon puts in force: it must be what is.
            let back = NewRevision {
                parent: revision,
                time: Timestamp::now(),
                actor: "wardlined",
                reason: "the kernel did not take the revision before",
                kind: "revert",
                request_id: &author.request_id,
                policy: &current.policy,
                meta: &[],
            };
            self.store.append(&back, &current.ids)?;
            return Err(refusal);
        }
        info!(
            revision,
            actor = author.actor,
            reason = author.reason,
            "policy in force"
        );
        warnings.extend(self.unguarded());
        Ok(Applied {
            revision,
            parent: current.revision,
            warnings,
        })
    }

    /// What a document would change.
    ///
    /// # Errors
    ///
    /// Why it would be refused.
    pub fn plan(&mut self, policy: &v1::Policy) -> Result<v1::PlanResponse, Refusal> {
        let prepared = self.prepare(policy)?;
        let current = self.snapshot();
        Ok(v1::PlanResponse {
            base: current.revision,
            changes: plan::changes(&current.policy, policy),
            warnings: prepared.intent.warnings,
            tables: self
                .datapath
                .needs(&prepared.tables)
                .into_iter()
                .map(table_status)
                .collect(),
        })
    }

    /// The document of a revision; 0: the one in force.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn policy(&self, revision: u64) -> Result<v1::GetPolicyResponse, Refusal> {
        let current = self.snapshot();
        if revision == 0 || revision == current.revision {
            let policy = (current.revision != 0).then(|| current.policy.clone());
            return Ok(v1::GetPolicyResponse {
                revision: current.revision,
                policy,
            });
        }
        match self.store.get(revision)? {
            Some(stored) => Ok(v1::GetPolicyResponse {
                revision,
                policy: Some(stored.policy),
            }),
            None => Err(Refusal::NoRevision(revision)),
        }
    }

    /// The newest revisions after one, oldest first.
    ///
    /// # Errors
    ///
    /// When the history can't be read.
    pub fn revisions_after(&self, revision: u64) -> Result<Vec<store::Revision>, Refusal> {
        const MOST: u32 = 1000;
        let mut revisions = self.store.list(MOST)?;
        revisions.retain(|known| known.revision > revision);
        revisions.reverse();
        Ok(revisions)
    }

    /// Puts hooks and tables right, whether interfaces or addresses changed or not: a hook may have
    /// been taken off or become free, and an offload switched.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_inventory(&mut self, inventory: Inventory) -> Result<(), Refusal> {
        if inventory != self.inventory {
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
        if inventory == self.inventory {
            return Ok(());
        }
        let current = self.snapshot();
        self.inventory = inventory;
        if current.revision == 0 {
            return Ok(());
        }
        let clock = current.clock;
        let intent = current.intent.clone();
        let ids = current.ids.clone();
        let tables = compile::compile(&intent, &self.inventory, &ids, &current.quarantined, &clock);
        let prepared = Prepared {
            intent,
            ids,
            tables,
            clock,
        };
        self.take_force(current.revision, current.policy.clone(), prepared)
    }

    /// What runs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn status(&self) -> Result<v1::GetStatusResponse, Refusal> {
        let current = self.snapshot();
        let mut warnings = current.intent.warnings.clone();
        let lost = self.datapath.gauge(gauge::LOST_EVENTS)?;
        if lost != 0 {
            warnings.push(format!("{lost} events were lost: the ring was full"));
        }
        warnings.extend(self.unguarded());
        let matched = |port: &intent::Port| {
            self.inventory.links.values().any(|link| {
                current
                    .intent
                    .port_for(&link.name)
                    .is_some_and(|p| p.pattern == port.pattern)
            })
        };
        for port in current.intent.ports.iter().filter(|port| !matched(port)) {
            warnings.push(format!(
                "port {}: no such interface yet",
                port.pattern.as_str()
            ));
        }
        for fill in self
            .datapath
            .fill()?
            .iter()
            .filter(|fill| fill.used * 10 >= fill.max * 9)
        {
            warnings.push(format!(
                "table {} is nearly full: {} of {}",
                fill.name, fill.used, fill.max
            ));
        }
        Ok(v1::GetStatusResponse {
            router: self.config.router.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: current.revision,
            pending: None,
            ports: self.ports.clone(),
            tables: self
                .datapath
                .fill()?
                .into_iter()
                .map(table_status)
                .collect(),
            warnings,
        })
    }

    /// Packets and bytes by reason and rule.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn counters(&self) -> Result<v1::GetCountersResponse, Refusal> {
        let current = self.snapshot();
        let reasons = self.datapath.reasons()?;
        let names: Vec<&String> = current.intent.rules.iter().map(|rule| &rule.name).collect();
        let numbers = names
            .iter()
            .map(|name| compile::number_of(&current.ids, numbered::RULE, name));
        let rules = self.datapath.rules(numbers)?;
        Ok(v1::GetCountersResponse {
            reasons: reasons
                .into_iter()
                .filter(|(_, counter)| *counter != Counter::default())
                .map(|(reason, counter)| v1::ReasonCounter {
                    reason: reason_number(reason),
                    packets: counter.packets,
                    bytes: counter.bytes,
                })
                .collect(),
            rules: names
                .into_iter()
                .zip(rules)
                .map(|(name, counter)| v1::RuleCounter {
                    rule: name.clone(),
                    packets: counter.packets,
                    bytes: counter.bytes,
                })
                .collect(),
            lost_events: u64::from(self.datapath.gauge(gauge::LOST_EVENTS)?),
        })
    }

    /// The live flows, at most so many; 0: all.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn flows(&mut self, limit: u32) -> Result<Vec<v1::Flow>, Refusal> {
        let limit = if limit == 0 {
            usize::MAX
        } else {
            limit as usize
        };
        let current = self.snapshot();
        let now = self.datapath.tick()?;
        let settings = self.datapath.settings()?;
        let mut found = Vec::new();
        self.datapath.flows(|flow| {
            let bits = flow.state.load();
            let idle = now.wrapping_sub(flow.last.load()) as i32;
            let protocol = flow.key[4].load() as u8;
            let live = idle <= flows::lifetime(protocol, bits, &settings) as i32;
            if live && found.len() < limit {
                found.push(described(flow, &current, now));
            }
        })?;
        Ok(found)
    }

    /// The devices and where each was last seen.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn devices(&mut self) -> Result<Vec<v1::DeviceStatus>, Refusal> {
        let current = self.snapshot();
        let tick = self.datapath.tick()?;
        let now = Timestamp::now();
        let mut latest: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        self.datapath.flows(|flow| {
            for leg in [0, 1] {
                let (device, bind) = (flow.devices[leg].load(), flow.bind[leg].load());
                let (last, ifindex) = (flow.last.load(), bind as u16);
                if device > abi::ROUTER && bind >> 16 != 0 && flow.packets[leg].load() != 0 {
                    let seen = latest.entry(device).or_insert((last, u32::from(ifindex)));
                    if (last.wrapping_sub(seen.0) as i32) > 0 {
                        *seen = (last, u32::from(ifindex));
                    }
                }
            }
        })?;
        let mut learned: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (address, device, _) in self.datapath.learned()? {
            learned
                .entry(device)
                .or_default()
                .push(compile::ip_of(address).to_string());
        }
        let mut devices = Vec::new();
        for device in &current.intent.devices {
            let number = compile::number_of(&current.ids, numbered::DEVICE, &device.name);
            let by_flow = latest.get(&number).copied();
            let seen = match (self.datapath.seen(number)?, by_flow) {
                (Some(a), Some(b)) if (b.0.wrapping_sub(a.0) as i32) > 0 => Some(b),
                (Some(a), _) => Some(a),
                (None, by_flow) => by_flow,
            };
            let last_seen = seen.map(|(last, _)| {
                let ago = current.clock.seconds_since(last, tick);
                proto_time(now - jiff::SignedDuration::from_secs(ago as i64))
            });
            let mut addresses: Vec<String> =
                device.addresses.iter().map(ToString::to_string).collect();
            if addresses.is_empty() {
                addresses = learned.remove(&number).unwrap_or_default();
                addresses.sort();
            }
            devices.push(v1::DeviceStatus {
                name: device.name.clone(),
                zone: current.intent.zones[device.zone.0].name.clone(),
                macs: device.macs.iter().map(ToString::to_string).collect(),
                addresses,
                port: seen.map_or_else(String::new, |(_, ifindex)| {
                    current.interface(ifindex).to_owned()
                }),
                last_seen,
                quarantined: current.quarantined.contains(&device.name),
            });
        }
        Ok(devices)
    }

    /// Ends flows that have timed out, also in buckets where no packet comes by.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn sweep(&mut self) -> Result<(), Refusal> {
        let buckets = self.datapath.buckets();
        Ok(self.datapath.sweep((buckets / 4).clamp(64, 65_536))?)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Everything that can be refused, before anything changes.
    fn prepare(&mut self, policy: &v1::Policy) -> Result<Prepared, Refusal> {
        let excess = intent::excess(policy, &self.config.limits);
        if !excess.is_empty() {
            return Err(Refusal::TooLarge(excess));
        }
        let intent = Intent::from_policy(policy, &self.config.limits).map_err(Refusal::Invalid)?;
        let current = self.snapshot();
        let known = if current.ids.is_empty() {
            self.store.ids()
        } else {
            &current.ids
        };
        let ids =
            compile::number(&intent, known, &self.config.limits).map_err(Refusal::TooLarge)?;
        let clock = self.datapath.clock()?;
        let quarantined = current.quarantined.clone();
        let tables = compile::compile(&intent, &self.inventory, &ids, &quarantined, &clock);
        let full: Vec<Problem> = self
            .datapath
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
                intent,
                ids,
                tables,
                clock,
            })
        } else {
            Err(Refusal::TooLarge(full))
        }
    }

    /// Makes tables the ones that judge, then puts hooks where they belong.
    fn take_force(
        &mut self,
        revision: u64,
        policy: v1::Policy,
        prepared: Prepared,
    ) -> Result<(), Refusal> {
        let Prepared {
            intent,
            ids,
            tables,
            clock,
        } = prepared;
        let current = self.snapshot();
        self.datapath.put(revision, &tables)?;
        let fresh = ids.iter().filter(|(key, _)| {
            key.0 == numbered::RULE && current.revision != 0 && !current.ids.contains_key(key)
        });
        for (_, number) in fresh {
            self.datapath.reset_rule(*number)?;
        }
        let snapshot = Snapshot::new(
            revision,
            policy,
            intent,
            self.inventory.clone(),
            current.quarantined.clone(),
            ids,
            tables,
            clock,
        );
        self.guard(&snapshot);
        self.snapshots.send_replace(Arc::new(snapshot));
        Ok(())
    }

    /// Puts hooks on the ports that exist, and takes them off everything else.
    fn guard(&mut self, snapshot: &Snapshot) {
        let mut statuses = Vec::new();
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
            let status = v1::PortStatus {
                zone: snapshot
                    .name(numbered::ZONE, u32::from(entry.zone))
                    .to_owned(),
                interface: link.name,
                attached: attached.into(),
                reason,
                ifindex: *ifindex,
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
    fn unguarded(&self) -> impl Iterator<Item = String> {
        self.ports
            .iter()
            .filter(|port| port.attached() == v1::Attached::None)
            .map(|port| format!("port {} is not guarded: {}", port.interface, port.reason))
    }
}

/// Everything that a revision needs, checked.
struct Prepared {
    intent: Intent,
    ids: Ids,
    tables: Tables,
    clock: Clock,
}

fn table_status(fill: Fill) -> v1::TableStatus {
    v1::TableStatus {
        name: fill.name.to_owned(),
        used: fill.used,
        max: fill.max,
    }
}

/// The proto's number of a reason is the kernel's.
fn reason_number(reason: Reason) -> i32 {
    i32::from(reason as u8)
}

/// A flow as the API tells it.
fn described(flow: &abi::Flow, snapshot: &Snapshot, now: u32) -> v1::Flow {
    let (key, bits) = (flow.key(), flow.state.load());
    let (opener, other) = if flows::opener(bits) == 0 {
        (0, 1)
    } else {
        (1, 0)
    };
    let address =
        |leg: usize| compile::ip_of(if leg == 0 { key.low } else { key.high }).to_string();
    let port = |leg: usize| (key.ports >> if leg == 0 { 48 } else { 32 }) as u16;
    let protocol = key.ports as u8;
    let rule = flow.rule.load() & !abi::LOG;
    let state = match protocol {
        6 if flows::is_closing(bits) => "closing",
        6 if bits & state::CONFIRMED != 0 => "established",
        _ if bits & state::ANSWERED != 0 => "answered",
        _ => "unanswered",
    };
    v1::Flow {
        source: address(opener),
        destination: address(other),
        protocol: protocol_text(protocol),
        source_port: u32::from(port(opener)),
        destination_port: if matches!(protocol, 1 | 58) {
            0
        } else {
            u32::from(port(other))
        },
        rule: snapshot.name(numbered::RULE, rule).to_owned(),
        state: state.to_owned(),
        age_s: snapshot.clock.seconds_since(flow.last.load(), now),
        packets: [opener, other]
            .map(|leg| u64::from(flow.packets[leg].load()))
            .to_vec(),
        bytes: [opener, other].map(|leg| flow.bytes[leg].load()).to_vec(),
    }
}

/// The name of an IP protocol, or its number.
pub fn protocol_text(protocol: u8) -> String {
    match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

/// A time as the proto has it.
pub fn proto_time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// What others hold of the engine.
#[derive(Clone)]
pub struct Handle {
    jobs: mpsc::Sender<Job>,
}

/// The engine has stopped.
#[derive(Debug, thiserror::Error)]
#[error("the engine has stopped")]
pub struct Stopped;

impl Handle {
    /// Has the engine do something, and waits for the answer.
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
            // Nobody waits any more when the caller's deadline has passed; the job is done anyway.
            let _ = answer.send(job(engine));
        });
        self.jobs.send(job).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

/// Runs an engine on a thread of its own until every handle is gone.
///
/// # Errors
///
/// When there can be no thread.
pub fn run(mut engine: Engine) -> std::io::Result<(Handle, std::thread::JoinHandle<()>)> {
    let (jobs, mut waiting) = mpsc::channel::<Job>(64);
    let thread = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut engine);
                // After the answer, so that nobody waits for it.
                engine.datapath.settle();
            }
        })?;
    Ok((Handle { jobs }, thread))
}
