//! The program that takes over what another version has in its tables.
//!
//! The daemon reads it there and writes it to [`CARRIED`]. It is put into this version's tables here,
//! because packets write to them at the same time.

use aya_ebpf::{
    btf_maps::Array,
    macros::{btf_map, classifier},
    programs::TcContext,
};
use wardline_ebpf::{
    abi::{Carried, gauge},
    flows::{self, Carrying},
    lookup::Lookup as _,
};

use super::maps::{FORWARDED, Maps, REASONS, RULES, add, found};

/// The bytes of a description of the tables, whose form the daemon knows. This version's is pinned
/// with them, so that another version can read them.
#[btf_map]
static LAYOUT: Array<[u8; 8192], 1> = Array::new();
#[btf_map]
static CARRIED: Array<Carried, { Carried::AT_ONCE as usize }> = Array::new();
#[btf_map]
static CARRYING: Array<Carrying, 1> = Array::new();

/// Takes the next of [`CARRIED`] over. Run by `BPF_PROG_TEST_RUN`.
#[classifier]
fn carry(_context: TcContext) -> i32 {
    let (Some(next), Some(settings)) = (Maps.gauge(gauge::CARRIED), Maps.settings()) else {
        return 0;
    };
    let index = next.load();
    next.store(index.wrapping_add(1));
    let (Some(carried), Some(carrying)) = (found!(CARRIED.get_ptr(index)), CARRYING.get_ptr_mut(0))
    else {
        return 0;
    };
    let counted = |counter| add(counter, carried.bytes[0], carried.bytes[1]);
    match carried.what {
        Carried::RULE => counted(RULES.get_ptr_mut(carried.rule)),
        Carried::REASON => counted(REASONS.get_ptr_mut(carried.rule)),
        Carried::FORWARDED => counted(FORWARDED.get_ptr_mut(carried.rule)),
        _ => {
            // SAFETY: the daemon runs this program on one thread only, and no other uses this memory.
            let carrying = unsafe { &mut *carrying };
            flows::carry(&Maps, settings, carrying, carried);
        }
    }
    // The linker leaves out what no program uses.
    i32::from(LAYOUT.get_ptr(0).is_none())
}
