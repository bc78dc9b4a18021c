//! Names that were known before a reboot: puts them back before packets are judged.

use tracing::warn;
use wardline_datapath::names::Known;
use wardline_ebpf::abi::{Address, Named};
use wardline_policy::numbers::{Ids, number_of, numbered};

use super::Engine;
use crate::store::names;

impl Engine {
    /// Puts back what was known of names. What can't be had is left out: the next question of a device
    /// brings it back.
    pub(super) fn restore_names(&self, ids: &Ids) {
        let reader = self.in_force.datapath.reader();
        let remembered = match names::read(&self.config.state_dir) {
            Ok(remembered) => remembered,
            Err(error) => return warn!(%error, "what was known of names can't be read"),
        };
        if remembered.is_empty() {
            return;
        }
        let clock = match reader.clock() {
            Ok(clock) => clock,
            Err(error) => return warn!(%error, "what was known of names can't be put back"),
        };
        let known: Vec<Known> = remembered
            .into_iter()
            .filter(|it| it.until > clock.now)
            .map(|it| Known {
                selector: number_of(ids, numbered::NAME, &it.name),
                named: Named {
                    address: Address::from(it.address),
                    resolver: Address::from(it.resolver),
                    asker: Address::from(it.asker),
                    until: clock.tick(it.until),
                    reserved: 0,
                },
            })
            .filter(|it| it.selector != 0)
            .collect();
        if let Err(error) = reader.restore_names(&known) {
            warn!(%error, "what was known of names can't be put back");
        }
    }
}
