//! Gives numbers to interfaces whose index is too large to be one.
//!
//! The kernel finds a number by [`MAP`], which is pinned: an interface keeps its number as long as
//! it is there, whatever the daemon does. A number that has become free is given to another
//! interface as late as possible, and only once no table of a revision has an entry for it, so that
//! nothing which was for one interface ever holds for another.

use std::collections::{BTreeMap, BTreeSet};

use wardline_ebpf::abi::{FAR, INTERFACES, Port};
use wardline_policy::inventory::Inventory;

use crate::{
    Datapath,
    error::{DatapathError, Result, map_error},
    maps::{get, remove_if_there, view},
};

/// The numbers by index, in the kernel.
const MAP: &str = "FAR_INTERFACES";

/// Marks what is no number. No index has this bit.
const NONE: u32 = 1 << 31;

/// The numbers of far interfaces.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// By index.
    given: BTreeMap<u32, u32>,
    /// Where to look for the next free one.
    next: u32,
}

impl Numbers {
    pub(crate) fn new(given: BTreeMap<u32, u32>) -> Self {
        let last = given.values().max();
        let next = last.map_or(FAR, |last| last + 1);
        Self { given, next }
    }

    /// The number of an interface. Of one without, what is no number and differs from any other's.
    pub(crate) fn of(&self, ifindex: u32) -> u32 {
        if ifindex < FAR {
            return ifindex;
        }
        let given = self.given.get(&ifindex).copied();
        given.unwrap_or(ifindex | NONE)
    }

    /// The next number in turn that is free.
    fn take(&mut self, mut is_free: impl FnMut(u32) -> bool) -> Option<u32> {
        let taken: BTreeSet<u32> = self.given.values().copied().collect();
        let all = FAR..INTERFACES;
        let start = if all.contains(&self.next) {
            self.next
        } else {
            FAR
        };
        let mut in_turn = (start..INTERFACES).chain(FAR..start);
        let found = in_turn.find(|number| !taken.contains(number) && is_free(*number))?;
        self.next = found + 1;
        Some(found)
    }
}

impl Datapath {
    /// Gives far interfaces their numbers; those that are gone lose theirs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn number(&mut self, inventory: &mut Inventory) -> Result<()> {
        let far = |ifindex: &u32| *ifindex >= FAR;
        let there: BTreeSet<u32> = inventory
            .links
            .values()
            .map(|link| link.ifindex)
            .filter(far)
            .collect();
        let gone = self.numbers.given.keys();
        let gone: Vec<u32> = gone.filter(|it| !there.contains(it)).copied().collect();
        for ifindex in gone {
            remove_if_there(self.far()?.remove(&ifindex)).map_err(map_error(MAP))?;
            self.numbers.given.remove(&ifindex);
        }
        for ifindex in there {
            if self.numbers.given.contains_key(&ifindex) {
                continue;
            }
            let mut failed = None;
            let ebpf = &self.ebpf;
            let number = self.numbers.take(|number| {
                let free = [0, 1].into_iter().try_fold(true, |free, slot| {
                    let port: Port = get(ebpf, "PORTS", Port::index(number, slot))?;
                    Ok(free && port == Port::default())
                });
                free.unwrap_or_else(|error| {
                    failed = Some(error);
                    false
                })
            });
            if let Some(error) = failed {
                return Err(error);
            }
            let Some(number) = number else {
                break;
            };
            let inserted = self.far()?.insert(ifindex, number, 0);
            inserted.map_err(map_error(MAP))?;
            self.numbers.given.insert(ifindex, number);
        }
        inventory.number(|ifindex| self.numbers.of(ifindex));
        Ok(())
    }

    fn far(&mut self) -> Result<aya::maps::HashMap<&mut aya::maps::MapData, u32, u32>> {
        let map = self.ebpf.map_mut(MAP).ok_or(DatapathError::Missing(MAP))?;
        map.try_into().map_err(map_error(MAP))
    }
}

/// The numbers that an earlier daemon gave.
pub(crate) fn given(ebpf: &aya::Ebpf) -> Result<Numbers> {
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
        assert_eq!(numbers.take(|_| true), Some(FAR + 2));
        assert_eq!(numbers.take(|number| number != FAR + 3), Some(FAR + 4));
        numbers.next = INTERFACES;
        assert_eq!(numbers.take(|_| true), Some(FAR));
        assert_eq!(numbers.take(|number| number == FAR), Some(FAR));
        assert_eq!(numbers.take(|number| number == FAR + 1), None);
    }
}
