//! Which interface has which number, where the index is too large to be one.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use wardline_ebpf::abi::{FAR, INTERFACES};

use crate::{
    error::{Result, map_error},
    maps::view,
};

/// The numbers by index, in the kernel.
pub(crate) const MAP: &str = "FAR_INTERFACES";

/// Marks what is no number. No index has this bit.
const NONE: u32 = 1 << 31;

/// The numbers of far interfaces.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    /// By index.
    given: BTreeMap<u32, u32>,
    /// The same numbers.
    taken: BTreeSet<u32>,
    /// Where to look for the next free one.
    next: u32,
    /// Free numbers at which addresses may still be learned that were an earlier interface's.
    pub(crate) stale: BTreeSet<u32>,
}

impl Numbers {
    pub(crate) fn new(given: BTreeMap<u32, u32>) -> Self {
        let last = given.values().max();
        let next = last.map_or(FAR, |last| last + 1);
        let taken: BTreeSet<u32> = given.values().copied().collect();
        let free = (FAR..INTERFACES).filter(|number| !taken.contains(number));
        Self {
            stale: free.collect(),
            given,
            taken,
            next,
        }
    }

    /// The number of an interface. Of one without, what is no number and differs from any other's.
    pub(crate) fn of(&self, ifindex: u32) -> u32 {
        if ifindex < FAR {
            return ifindex;
        }
        let given = self.given.get(&ifindex).copied();
        given.unwrap_or(ifindex | NONE)
    }

    /// The numbers, by index.
    pub(crate) fn given(&self) -> &BTreeMap<u32, u32> {
        &self.given
    }

    /// The next number in turn that is free.
    pub(crate) fn next(&mut self, is_free: impl Fn(u32) -> Result<bool>) -> Result<Option<u32>> {
        let all = FAR..INTERFACES;
        let start = if all.contains(&self.next) {
            self.next
        } else {
            FAR
        };
        let in_turn = (start..INTERFACES).chain(FAR..start);
        for number in in_turn.filter(|number| !self.taken.contains(number)) {
            if is_free(number)? {
                self.next = number + 1;
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Gives a number to an interface.
    pub(crate) fn give(&mut self, ifindex: u32, number: u32) {
        self.given.insert(ifindex, number);
        self.taken.insert(number);
    }

    /// Takes the number back from an interface that is gone.
    pub(crate) fn take_back(&mut self, ifindex: u32) {
        if let Some(number) = self.given.remove(&ifindex) {
            self.taken.remove(&number);
            self.stale.insert(number);
        }
    }
}

/// The numbers that an earlier daemon gave.
pub(crate) fn given(ebpf: &Ebpf) -> Result<Numbers> {
    let map: aya::maps::HashMap<_, u32, u32> = view(ebpf, MAP)?;
    let given = map.iter().collect::<std::result::Result<_, _>>();
    given.map(Numbers::new).map_err(map_error(MAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_interface_has_its_index_and_a_far_one_what_it_was_given() {
        let numbers = Numbers::new([(1 << 30, FAR + 7)].into());
        assert_eq!(numbers.of(1), 1);
        assert_eq!(numbers.of(FAR - 1), FAR - 1);
        assert_eq!(numbers.of(1 << 30), FAR + 7);
        // No table holds what has no number, though its index is one that another was given.
        assert!(numbers.of(FAR + 7) >= INTERFACES);
        assert_ne!(numbers.of(FAR + 7), numbers.of(FAR + 8));
    }

    #[test]
    fn numbers_are_given_in_turn_and_again_as_late_as_possible() {
        let mut numbers = Numbers::new([(50_000, FAR + 1)].into());
        let mut take = |next: Option<u32>, is_free: &dyn Fn(u32) -> bool| {
            numbers.next = next.unwrap_or(numbers.next);
            numbers
                .next(|number| Ok(is_free(number)))
                .expect("an answer")
        };
        assert_eq!(take(None, &|_| true), Some(FAR + 2));
        assert_eq!(take(None, &|number| number != FAR + 3), Some(FAR + 4));
        assert_eq!(take(Some(INTERFACES), &|_| true), Some(FAR));
        assert_eq!(take(None, &|number| number == FAR), Some(FAR));
        assert_eq!(take(None, &|number| number == FAR + 1), None);
    }
}
