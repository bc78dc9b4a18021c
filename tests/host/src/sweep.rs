//! Does the sweep of the flow table remove flows that are silent, and none that is in use?

use std::cell::Cell;

use wardline_ebpf::{
    abi::{
        Address, AddressKey, Askings, Bucket, Clients, Denial, End, Failsafe, FlowKey, Forwarding,
        Fragment, FragmentKey, Inquiry, Interval, Learned, Mac, NEVER, Named, Port, PrefixKey,
        Quota, Resolved, Routes, Seen, Set, Settings, Watched, gauge,
    },
    cell::{Cell32, Cell64},
    flows::{self, Found, Opening, Sought},
    lookup::Lookup,
    name_buffer::NameBuffer,
    packet::number,
};

pub(crate) const DEVICE: u32 = 7;
pub(crate) const RULE: u32 = 3;
/// When the flows open.
pub(crate) const START: u32 = 1000;

/// One bucket and one quota, and what to do at the moment when the bucket is locked.
pub(crate) struct Tables<'a> {
    pub(crate) settings: Settings,
    pub(crate) bucket: Bucket,
    pub(crate) quota: Quota,
    pub(crate) gauges: [Cell32; gauge::COUNT as usize],
    /// Packets and bytes that flows have credited to their rule.
    pub(crate) credit: Cell<(u32, u64)>,
    meanwhile: &'a dyn Fn(&Bucket),
    locked: Cell<u32>,
}

impl<'a> Tables<'a> {
    pub(crate) fn new(meanwhile: &'a dyn Fn(&Bucket)) -> Self {
        Self {
            settings: Settings {
                buckets: 1,
                ..Settings::for_flows(64)
            },
            bucket: Bucket::default(),
            credit: Cell::new((0, 0)),
            quota: Quota::default(),
            gauges: Default::default(),
            meanwhile,
            locked: Cell::new(0),
        }
    }

    fn open(&self, port: u64) {
        let key = FlowKey {
            low: Address::v4([10, 0, 0, 1]),
            high: Address::v4([10, 0, 0, 2]),
            ports: port << 48 | 514 << 32 | u64::from(number::UDP),
        };
        let mut sought = Sought::default();
        sought.set(key, self.settings.seed);
        let opening = Opening {
            device: DEVICE,
            rule: RULE,
            until: NEVER,
            length: 60,
            ..Opening::default()
        };
        flows::open(
            self,
            &self.settings,
            &sought,
            &opening,
            &Cell64::new(0),
            START,
        )
        .unwrap();
    }

    /// The ports of the live flows, and how many flows quota and gauge count.
    pub(crate) fn left(&self) -> (Vec<u64>, u32, u32) {
        let live = self.bucket.tags.iter().zip(&self.bucket.ways);
        let mut ports: Vec<u64> = live
            .filter(|(tag, _)| tag.load() != 0)
            .map(|(_, way)| way.flow.key[1].load() >> 48)
            .collect();
        ports.sort_unstable();
        let open = self.quota.unanswered.load() + self.quota.answered.load();
        (ports, open, self.gauges[gauge::FLOWS as usize].load())
    }
}

/// The flow of a port.
fn of(bucket: &Bucket, port: u64) -> Option<Found<'_>> {
    let mut ways = bucket.ways.iter();
    let way = ways.position(|way| way.flow.key[1].load() >> 48 == port)?;
    let flow = &bucket.ways[way].flow;
    Some(Found {
        bucket,
        flow,
        state: flow.state.load(),
        at: way as u32,
    })
}

#[test]
fn what_is_silent_goes_and_what_is_in_use_stays() {
    let tables = Tables::new(&|_| ());
    [1, 2, 3].into_iter().for_each(|port| tables.open(port));
    assert_eq!(tables.left(), (vec![1, 2, 3], 3, 3));

    // No flow is removed before its timeout.
    let lives = tables.settings.udp;
    flows::sweep(&tables, &tables.settings, START + lives);
    assert_eq!(tables.left(), (vec![1, 2, 3], 3, 3));

    // The second has had a packet at the last moment.
    let second = of(&tables.bucket, 2).unwrap();
    flows::count_packet(&second, 0, second.state, 60, START + lives);
    flows::sweep(&tables, &tables.settings, START + lives + 1);
    assert_eq!(tables.left(), (vec![2], 1, 1));
    // The packets of removed flows are the rule's; those of the second flow are still its own.
    assert_eq!(tables.credit.get(), (2, 120));
}

#[test]
fn what_comes_back_to_life_before_the_lock_is_taken_stays() {
    let now = START + Settings::for_flows(64).udp + 1;
    let comes_back = |bucket: &Bucket| {
        if let Some(flow) = of(bucket, 1) {
            flows::count_packet(&flow, 0, flow.state, 60, now);
        }
    };
    let tables = Tables::new(&|_| ());
    [1, 2].into_iter().for_each(|port| tables.open(port));
    let tables = Tables {
        meanwhile: &comes_back,
        ..tables
    };
    let before = tables.locked.get();
    flows::sweep(&tables, &tables.settings, now);
    assert!(tables.locked.get() > before, "nothing looked silent");
    assert_eq!(tables.left(), (vec![1], 1, 1));
}

#[test]
fn a_flow_that_another_has_replaced_before_the_lock_is_taken_stays() {
    let now = START + Settings::for_flows(64).udp + 1;
    // Another flow, which is in use, has taken its place.
    let replaced = |bucket: &Bucket| {
        if let Some(Found { flow, at, .. }) = of(bucket, 1) {
            flow.key[1].store(9 << 48 | 514 << 32 | u64::from(number::UDP));
            bucket.last[at as usize].store(now);
        }
    };
    let tables = Tables::new(&|_| ());
    tables.open(1);
    let tables = Tables {
        meanwhile: &replaced,
        ..tables
    };
    flows::sweep(&tables, &tables.settings, now);
    assert_eq!(tables.left(), (vec![9], 1, 1));
}

impl Lookup for Tables<'_> {
    fn active(&self) -> Option<u32> {
        Some(0)
    }

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn failsafe(&self, _: u32) -> Option<&Failsafe> {
        None
    }

    fn tick(&self) -> u32 {
        START
    }

    fn port(&self, _: u32) -> Option<&Port> {
        None
    }

    fn forwarding(&self, _: u32) -> Option<&Forwarding> {
        None
    }

    fn routes(&self) -> Option<&Routes> {
        None
    }

    fn place(&self, _: u64) -> Option<u32> {
        None
    }

    fn zone(&self, _: u32) -> Option<u32> {
        None
    }

    fn mac(&self, _: u64) -> Option<&Mac> {
        None
    }

    fn address(&self, _: &AddressKey) -> Option<&End> {
        None
    }

    fn prefix(&self, _: &PrefixKey) -> Option<&End> {
        None
    }

    fn end(&self, _: u32, _: &Address, _: &mut End) -> bool {
        false
    }

    fn device(&self, _: u32) -> Option<&End> {
        None
    }

    fn pair(&self, _: u64) -> Option<&Set> {
        None
    }

    fn interval(&self, _: u32) -> Option<&Interval> {
        None
    }

    fn epoch(&self, _: u32) -> Option<u32> {
        None
    }

    fn bucket(&self, _: u32) -> Option<&Bucket> {
        Some(&self.bucket)
    }

    fn generation(&self, _: u32) -> Option<u64> {
        None
    }

    fn denial(&self, _: u32, _: u32) -> Option<&Denial> {
        None
    }

    fn denial_tags(&self, _: u32) -> Option<&Cell64> {
        None
    }

    fn flows_opened(&self, _: u32) -> Option<&Cell32> {
        None
    }

    fn add_suppressed(&self, _: &Denial, _: u32) {}

    fn credit(&self, rule: u32, packets: u32, bytes: u64) {
        assert_eq!(rule, RULE);
        let (before, length) = self.credit.get();
        self.credit.set((before + packets, length + bytes));
    }

    fn lock(&self, bucket: &Bucket) {
        self.locked.set(self.locked.get() + 1);
        (self.meanwhile)(bucket);
    }

    fn unlock(&self, _: &Bucket) {}

    fn clients(&self, _device: u32, _mac: u64) -> Option<&Clients> {
        unreachable!()
    }

    fn quota(&self, account: u32) -> Option<&Quota> {
        (account == DEVICE).then_some(&self.quota)
    }

    fn askings(&self, _: u32, _: u64, _: bool) -> Option<&Askings> {
        None
    }

    fn gauge(&self, cell: u32) -> Option<&Cell32> {
        self.gauges.get(cell as usize)
    }

    fn learned(&self, _: &Address) -> Option<&Learned> {
        None
    }

    fn find_place(&self, _: u64, _: bool) -> u32 {
        0
    }

    fn note_learned(&self, _: &Address, _: Learned) -> bool {
        false
    }

    fn forget_learned(&self, _: &Address) -> bool {
        false
    }

    fn held(&self, _: u64) -> Option<&Address> {
        None
    }

    fn hold(&self, _: u64, _: &Address) -> bool {
        false
    }

    fn release(&self, _: u64) -> bool {
        false
    }

    fn learned_at(&self, _: u32) -> Option<&Cell32> {
        None
    }

    fn fragment(&self, _: &FragmentKey) -> Option<&Fragment> {
        None
    }

    fn note_fragment(&self, _: &FragmentKey, _: &Fragment) -> bool {
        false
    }

    fn forget_fragment(&self, _: &FragmentKey) {}

    fn adopts_until(&self, _: u32) -> u32 {
        0
    }

    fn admission(&self, _: u32) -> Option<&Cell64> {
        None
    }

    fn is_resolver(&self, _: &AddressKey) -> bool {
        false
    }

    fn watched(&self, _: u32, _: &NameBuffer, _: usize) -> Option<&Watched> {
        None
    }

    fn inquirer(&self, _: u32) -> Option<&Cell64> {
        None
    }

    fn note_inquiry(&self, _: u64, _: &Inquiry) -> bool {
        false
    }

    fn inquiry(&self, _: u64) -> Option<&Inquiry> {
        None
    }

    fn forget_inquiry(&self, _: u64) {}

    fn resolved(&self, _: &Address, _: bool) -> Option<&Resolved> {
        None
    }

    fn forget_resolved(&self, _: &Address) {}

    fn named(&self, _: u64) -> Option<&Named> {
        None
    }

    fn name_address(&self, _: u64, _: &Named) -> bool {
        false
    }

    fn seen(&self, _: u32) -> Option<&Seen> {
        None
    }
}
