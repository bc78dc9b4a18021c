//! Gives numbers to interfaces whose index is too large to be one.
//!
//! The kernel finds a number by [`MAP`], which is pinned: an interface keeps its number as long as
//! it is there, whatever the daemon does. A number that has become free is given to another
//! interface only when its turn comes, when no table of a revision has an entry for it, and after
//! what was learned at it is forgotten: nothing that was for one interface holds for another.

use std::collections::BTreeSet;

use aya::maps::{HashMap, MapData};
use wardline_ebpf::abi::{FAR, Port};
use wardline_policy::inventory::Inventory;

use crate::{
    Datapath,
    error::{DatapathError, Result, map_error},
    far::MAP,
    maps::{get, remove_if_there},
};

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
        let hooks = self.hooks.clone();
        let numbers = &mut hooks.lock().numbers;
        let gone = numbers.given().keys();
        let gone: Vec<u32> = gone.filter(|it| !there.contains(it)).copied().collect();
        for ifindex in gone {
            remove_if_there(self.far()?.remove(&ifindex)).map_err(map_error(MAP))?;
            numbers.take_back(ifindex);
        }
        for ifindex in there {
            if numbers.given().contains_key(&ifindex) {
                continue;
            }
            let ebpf = &self.ebpf;
            let port = |number, slot| get::<Port>(ebpf, "PORTS", Port::index(number, slot));
            let is_free = |number| {
                let both = [port(number, 0)?, port(number, 1)?];
                Ok(both == [Port::default(); 2])
            };
            let Some(number) = numbers.next(is_free)? else {
                break;
            };
            if numbers.stale.contains(&number) {
                self.reader.forget_learned_at(&numbers.stale)?;
                numbers.stale.clear();
            }
            let inserted = self.far()?.insert(ifindex, number, 0);
            inserted.map_err(map_error(MAP))?;
            numbers.give(ifindex, number);
        }
        inventory.number(|ifindex| numbers.of(ifindex));
        Ok(())
    }

    fn far(&mut self) -> Result<HashMap<&mut MapData, u32, u32>> {
        let map = self.ebpf.map_mut(MAP).ok_or(DatapathError::Missing(MAP))?;
        map.try_into().map_err(map_error(MAP))
    }
}
