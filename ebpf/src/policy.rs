//! The decision of policy for two ends and a service; the order of rules has no effect.

use crate::{
    abi::{
        ASKS, Address, AddressKey, End, Interval, KEPT, MAX_ZONES, PrefixKey, ROUTER, RULE_FLAGS,
        Reason, Set, holding_device, kind, mac_key, name, pair_bit, pair_key, zone,
    },
    cell::Cell32,
    lookup::Lookup,
};
/// A policy decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// [`Reason::Rule`], or the reason for which it is dropped.
    pub reason: Reason,
    /// The rule that decided, with its [`RULE_FLAGS`]; 0: none.
    pub rule: u32,
    /// Tick at which the rule ends.
    pub until: u32,
}

impl Default for Decision {
    fn default() -> Self {
        Self {
            reason: Reason::NoRule,
            rule: 0,
            until: 0,
        }
    }
}

/// Steps of the search that suffice for the largest set of intervals.
const STEPS: usize = 16;
/// Steps that suffice for most sets.
const FEW: usize = 3;

/// Decides for a flow from one end to another: any matching deny wins, else any matching allow,
/// else nothing allows it. With one end in quarantine only the pairs that are kept in quarantine
/// hold, and with both ends no pair does.
///
/// Each end has up to four names; the sets of all pairs that exist are searched, at most sixteen
/// and usually one or two. `scratch` keeps the position of the search where the verifier does not
/// track it.
#[inline(always)]
pub fn judge<T: Lookup + ?Sized>(
    tables: &T,
    slot: u32,
    from: &End,
    to: &End,
    service: u32,
    tick: u32,
    scratch: &Cell32,
) -> Decision {
    let mut best = Decision::default();
    if from.flags & to.flags & End::QUARANTINED != 0 {
        best.reason = Reason::Quarantined;
        return best;
    }
    // Computed without a branch, because the verifier would follow the search twice.
    let kept = ((from.flags | to.flags) & End::QUARANTINED) as u32 * KEPT;
    let any = tables.zone(slot * MAX_ZONES).unwrap_or(0);
    let pairs = (from.from | (any >> 16) as u16) & (to.to | any as u16);
    'pairs: for from_kind in 0..4 {
        for to_kind in 0..4 {
            if pairs & pair_bit(from_kind, to_kind) == 0 {
                continue;
            }
            let (opener, other) = (from.name(from_kind), to.name(to_kind));
            if opener == 0 || other == 0 {
                continue;
            }
            let Some(set) = tables.pair(pair_key(slot, opener | kept, other)) else {
                continue;
            };
            let Some(interval) = find_interval(tables, set, service, scratch) else {
                continue;
            };
            if interval.deny != 0 && tick < interval.deny_until {
                best.reason = Reason::DeniedByRule;
                best.rule = interval.deny;
                best.until = interval.deny_until;
                break 'pairs;
            }
            if interval.allow == 0 {
                continue;
            }
            if tick >= interval.allow_until {
                if best.rule == 0 {
                    best = Decision {
                        reason: Reason::Expired,
                        rule: interval.allow,
                        until: 0,
                    };
                }
            } else if is_better(&best, interval) {
                let rule = interval.allow;
                best = Decision {
                    reason: Reason::Rule,
                    rule,
                    until: interval.allow_until,
                };
            }
        }
    }
    if kept != 0 && best.reason != Reason::Rule {
        best.reason = Reason::Quarantined;
        best.rule = 0;
    }
    best
}

/// Finds the interval of a service in a set: the last that starts at or before it.
#[inline(always)]
fn find_interval<'a, T: Lookup + ?Sized>(
    tables: &'a T,
    set: &Set,
    service: u32,
    scratch: &Cell32,
) -> Option<&'a Interval> {
    scratch.store(0);
    let narrow = |step: usize| {
        let next = scratch.load().wrapping_add(1 << step);
        if next < set.count
            && let Some(interval) = tables.interval(set.first.wrapping_add(next))
            && interval.start <= service
        {
            scratch.store(next);
        }
    };
    // Only a few sets are that large.
    if set.count > 1 << FEW {
        (FEW..STEPS).rev().for_each(narrow);
    }
    (0..FEW).rev().for_each(narrow);
    tables.interval(set.first.wrapping_add(scratch.load()))
}

/// Whether an address may have names: it is no device's, not the router's, in no network behind a guarded port, and
/// in no zone but one that has all that is elsewhere.
#[inline(always)]
pub fn may_have_names(end: &End) -> bool {
    end.device == 0
        && (end.zone == 0 || end.flags & End::ELSEWHERE != 0)
        && end.flags & (End::GUARDED | End::CONNECTED | End::SHARED) == 0
}

/// Whether a decision leaves it to the names of the other end: no rule has allowed or denied.
#[inline(always)]
pub fn is_undecided(decision: &Decision) -> bool {
    match decision.reason {
        Reason::NoRule | Reason::Expired => true,
        // A rule that denies has an end.
        Reason::Quarantined => decision.until == 0,
        _ => false,
    }
}

/// Improves a decision that has allowed nothing, or what another name of the other end has allowed, by
/// what rules say about one more name of it. No rule denies by name.
#[expect(clippy::too_many_arguments, reason = "each is asked for once")]
#[inline(always)]
pub fn judge_name<T: Lookup + ?Sized>(
    tables: &T,
    slot: u32,
    from: &End,
    selector: u32,
    service: u32,
    tick: u32,
    scratch: &Cell32,
    best: &mut Decision,
) {
    let kept = (from.flags & End::QUARANTINED) as u32 * KEPT;
    for from_kind in 0..4 {
        let opener = from.name(from_kind);
        if opener == 0 {
            continue;
        }
        let other = name(kind::DOMAIN, selector);
        let Some(set) = tables.pair(pair_key(slot, opener | kept, other)) else {
            continue;
        };
        let Some(interval) = find_interval(tables, set, service, scratch) else {
            continue;
        };
        if interval.allow == 0 {
            continue;
        }
        if tick >= interval.allow_until {
            if matches!(best.reason, Reason::NoRule) {
                best.reason = Reason::Expired;
                best.rule = interval.allow;
            }
        } else if !matches!(best.reason, Reason::Rule) || is_better(best, interval) {
            best.reason = Reason::Rule;
            best.rule = interval.allow;
            best.until = interval.allow_until;
        }
    }
}

/// Whether an interval's allow counts more than what was found before: it lasts longer, or as long
/// and lets others answer. Computed without branches, because the verifier would follow each.
#[inline(always)]
fn is_better(best: &Decision, interval: &Interval) -> bool {
    let (until, allow_until) = (best.until as u64, interval.allow_until as u64);
    let longer = until.wrapping_sub(allow_until) >> 63;
    let as_long = (until ^ allow_until).wrapping_sub(1) >> 63;
    let asks = ((interval.allow & !best.rule & ASKS) / ASKS) as u64;
    (longer | as_long & asks) != 0
}

/// What an address stands for: a device, the router or a zone, or none of these (false).
#[inline(always)]
pub fn end<T: Lookup + ?Sized>(tables: &T, slot: u32, address: &Address, end: &mut End) -> bool {
    tables.end(slot, address, end)
}

/// An address that is looked up, with a key for it: in the kernel there is no room for both on the
/// stack.
pub struct Question {
    /// The address.
    pub address: Address,
    /// Its key among the addresses that policy names exactly.
    pub exact: AddressKey,
}

impl Question {
    /// What an address stands for.
    #[inline(always)]
    pub fn new(slot: u32, address: &Address) -> Self {
        Self {
            address: *address,
            exact: AddressKey {
                address: address.without_link(),
                slot: slot as u64,
            },
        }
    }
}

/// Finds out what an address stands for. In the kernel this is a function of its own, which
/// [`Lookup::end`] calls.
#[inline(always)]
pub fn find_end<T: Lookup + ?Sized>(
    tables: &T,
    slot: u32,
    question: &Question,
    end: &mut End,
) -> bool {
    let address = &question.address;
    match tables.address(&question.exact) {
        Some(named) => end.take(named),
        None => {
            if !end_around(tables, slot, &question.exact.address, end) {
                return false;
            }
        }
    }
    if end.device != 0 {
        return true;
    }
    if address.is_link_local() {
        find_neighbour(tables, slot, address, end);
        return true;
    }
    // A learned address belongs to its device as long as the device may learn addresses of this
    // zone.
    if let Some(learned) = tables.learned(address) {
        let device = holding_device(learned.holder.load());
        if let Some(known) = tables.device(device << 1 | slot)
            && known.flags & End::learns(address) != 0
            && is_in(tables, slot, end, known.zone, address)
        {
            end.device = device;
            end.zone = known.zone;
            end.class = known.class;
            end.flags = known.flags | end.flags & End::NAMES;
            end.from |= known.from;
            end.to |= known.to;
        }
    }
    true
}

/// Whose a link-local address is: that of the device whose MAC it is made of, or of whoever has
/// claimed it on its link. No prefix tells the zone of it.
#[inline(always)]
fn find_neighbour<T: Lookup + ?Sized>(tables: &T, slot: u32, address: &Address, end: &mut End) {
    // The compiler of the policy does not know which pairs exist with this end.
    (end.from, end.to) = (u16::MAX, u16::MAX);
    (end.zone, end.flags) = (0, 0);
    let device = match tables.mac(mac_key(slot, address.made_of_mac())) {
        Some(mac) => mac.device,
        None => match tables.learned(address) {
            Some(learned) => {
                let zone = learned.zone.load() & (MAX_ZONES - 1);
                let settings = tables.zone(slot * MAX_ZONES + zone).unwrap_or(0);
                if settings & zone::ADMIT_ANY != 0 {
                    end.zone = zone as u16;
                }
                end.flags = End::GUARDED;
                holding_device(learned.holder.load())
            }
            None => 0,
        },
    };
    if device == ROUTER {
        // One that the router could have made, and has not: nobody may have it, and no rule names it.
        *end = End {
            device: ROUTER,
            ..End::default()
        };
    } else if let Some(known) = tables.device(device << 1 | slot) {
        end.device = device;
        end.zone = known.zone;
        end.class = known.class;
        end.flags = known.flags;
    }
}

/// What the longest prefix around an address stands for, if there is one.
#[inline(always)]
pub fn end_around<T: Lookup + ?Sized>(
    tables: &T,
    slot: u32,
    address: &Address,
    end: &mut End,
) -> bool {
    match tables.prefix(&PrefixKey::new(slot, 0, address)) {
        Some(around) => {
            end.take(around);
            true
        }
        None => false,
    }
}

/// Whether an address, which stands for this end, is in a zone's subnets.
#[inline(always)]
pub fn is_in<T: Lookup + ?Sized>(
    tables: &T,
    slot: u32,
    end: &End,
    zone: u16,
    address: &Address,
) -> bool {
    end.zone == zone
        || end.flags & End::SHARED != 0
            && tables
                .prefix(&PrefixKey::new(slot, zone, address))
                .is_some_and(|it| it.flags & End::SHARED != 0)
}

/// The number of a rule, without its flags.
#[inline(always)]
pub fn rule_number(rule: u32) -> u32 {
    rule & !RULE_FLAGS
}
