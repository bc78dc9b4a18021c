//! What the pinned tables say, without loading a program or making a table.

use std::path::Path;

use aya::maps::{Array, Map, MapData};
use wardline_ebpf::abi::ABI_VERSION;

use crate::{
    error::{Result, map_error},
    other::others,
};

/// The revision by which packets are judged; none: no version has pinned tables, or none is in force.
/// Where this version has none, another's programs judge with theirs.
///
/// # Errors
///
/// When the kernel refuses.
pub fn judged_by(pin_dir: &Path) -> Result<Option<u64>> {
    let own = pin_dir.join(format!("v{ABI_VERSION}"));
    if let Some(revision) = in_force(&own.join("maps"))? {
        return Ok(Some(revision));
    }
    // Of another form than this version's, they tell nothing.
    let others = others(pin_dir).into_iter();
    Ok(others
        .filter_map(|it| in_force(&it.maps()).ok().flatten())
        .max())
}

fn in_force(maps: &Path) -> Result<Option<u64>> {
    let path = |name: &str| maps.join(name);
    if !path("ACTIVE").exists() || !path("REVISIONS").exists() {
        return Ok(None);
    }
    let map = |name: &'static str| {
        MapData::from_pin(path(name))
            .map(Map::Array)
            .map_err(map_error(name))
    };
    let active: Array<_, u32> = map("ACTIVE")?.try_into().map_err(map_error("ACTIVE"))?;
    let active = active.get(&0, 0).map_err(map_error("ACTIVE"))?;
    if active == 0 {
        return Ok(None);
    }
    let revisions = map("REVISIONS")?;
    let revisions: Array<_, u64> = revisions.try_into().map_err(map_error("REVISIONS"))?;
    let slot = (active - 1) & 1;
    revisions
        .get(&slot, 0)
        .map(Some)
        .map_err(map_error("REVISIONS"))
}
