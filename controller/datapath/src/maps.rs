//! Reads and writes maps: by name, one entry or many with one call, and only entries that differ.

use std::{collections::BTreeMap, os::fd::AsFd as _, time::Duration};

use aya::{
    Ebpf, Pod,
    maps::{Array, Map, MapData, MapError, PerCpuArray},
    programs::ProgramError,
};
use wardline_ebpf::abi::Counter;

use crate::{
    bpf,
    error::{DatapathError, Result, map_error, program_error},
};

pub(crate) fn data<'a>(name: &'static str, map: &'a Map) -> Result<&'a MapData> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data) => Ok(data),
        _ => Err(DatapathError::Missing(name)),
    }
}

pub(crate) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?;
    program.try_into().map_err(program_error(name))
}

/// A map, to read.
pub(crate) fn view<'a, M>(ebpf: &'a Ebpf, name: &'static str) -> Result<M>
where
    M: TryFrom<&'a Map, Error = MapError>,
{
    ebpf.map(name)
        .ok_or(DatapathError::Missing(name))?
        .try_into()
        .map_err(map_error(name))
}

pub(crate) fn get<V: Pod>(ebpf: &Ebpf, name: &'static str, index: u32) -> Result<V> {
    let map: Array<_, V> = view(ebpf, name)?;
    map.get(&index, 0).map_err(map_error(name))
}

pub(crate) fn set<V: Pod>(ebpf: &mut Ebpf, name: &'static str, index: u32, value: V) -> Result<()> {
    let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    let mut map: Array<_, V> = map.try_into().map_err(map_error(name))?;
    map.set(index, value, 0).map_err(map_error(name))
}

/// Changes an array from its old entries to the new ones, at the indexes that `index` gives for
/// keys. Returns how many entries it wrote.
pub(crate) fn array<V: Pod + Default + PartialEq>(
    ebpf: &mut Ebpf,
    name: &'static str,
    old: &BTreeMap<u32, V>,
    new: &BTreeMap<u32, V>,
    index: impl Fn(u32) -> u32,
) -> Result<usize> {
    let mut written = 0;
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        set(ebpf, name, index(*key), V::default())?;
        written += 1;
    }
    for (key, value) in new
        .iter()
        .filter(|(key, value)| old.get(key) != Some(value))
    {
        set(ebpf, name, index(*key), *value)?;
        written += 1;
    }
    Ok(written)
}

/// Changes a hash from its old entries to the new ones, under the kernel's keys. Returns how many
/// entries it wrote or removed.
pub(crate) fn hash<L: Ord, K: Pod, V: Pod + PartialEq>(
    ebpf: &mut Ebpf,
    name: &'static str,
    old: &BTreeMap<L, V>,
    new: &BTreeMap<L, V>,
    key: impl Fn(&L) -> K,
) -> Result<usize> {
    let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    let mut map: aya::maps::HashMap<_, K, V> = map.try_into().map_err(map_error(name))?;
    let (gone, changed) = difference(old, new);
    for at in &gone {
        remove_if_there(map.remove(&key(at))).map_err(map_error(name))?;
    }
    let changed = changed.into_iter();
    let (keys, values): (Vec<K>, Vec<V>) = changed.map(|(at, value)| (key(at), *value)).unzip();
    write(ebpf, name, &keys, &values, |ebpf, key, value| {
        let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
        let mut map: aya::maps::HashMap<_, K, V> = map.try_into().map_err(map_error(name))?;
        retry(|| map.insert(key, value, 0)).map_err(map_error(name))
    })?;
    Ok(gone.len() + keys.len())
}

/// The keys that are gone, and the entries that are new or different. It walks both once, because
/// most often nearly all of many entries are the same.
fn difference<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> (Vec<&'a K>, Vec<(&'a K, &'a V)>) {
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    let mut old = old.iter().peekable();
    for (key, value) in new {
        while let Some((before, _)) = old.next_if(|(before, _)| *before < key) {
            gone.push(before);
        }
        let was = old.next_if(|(before, _)| *before == key);
        if was.is_none_or(|(_, was)| was != value) {
            changed.push((key, value));
        }
    }
    gone.extend(old.map(|(key, _)| key));
    (gone, changed)
}

/// Entries that are written with one call.
pub(crate) const AT_ONCE: usize = 4096;

/// Writes entries, many with one call. `one` writes a single entry when that fails: the kernel may
/// have no such call for the map, or lack memory for a moment.
pub(crate) fn write<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    keys: &[K],
    values: &[V],
    mut one: impl FnMut(&mut Ebpf, K, V) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    while done < keys.len() {
        let end = keys.len().min(done + AT_ONCE);
        let map = ebpf.map(name).ok_or(DatapathError::Missing(name))?;
        let map = data(name, map)?.fd().as_fd();
        let (written, result) = bpf::write_many(map, &keys[done..end], &values[done..end]);
        done += written;
        if result.is_err() {
            // If there is a real error, writing the next entry alone returns it.
            let until = if written == 0 { end } else { done + 1 };
            for at in done..until.min(end) {
                one(ebpf, keys[at], values[at])?;
            }
            done = until.min(end);
        }
    }
    Ok(())
}

pub(crate) fn clear_hash<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    of_slot: impl Fn(&K) -> bool,
) -> Result<()> {
    let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    let mut map: aya::maps::HashMap<_, K, V> = map.try_into().map_err(map_error(name))?;
    let keys: Vec<K> = map.keys().flatten().filter(of_slot).collect();
    for key in keys {
        remove_if_there(map.remove(&key)).map_err(map_error(name))?;
    }
    Ok(())
}

/// Tries again when a growing table can't allocate: it takes memory from caches that refill in the
/// background, and a burst can find them empty although memory is free.
pub(crate) fn retry(
    mut insert: impl FnMut() -> std::result::Result<(), MapError>,
) -> std::result::Result<(), MapError> {
    for _ in 0..50 {
        match insert() {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOMEM) =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            done => return done,
        }
    }
    insert()
}

pub(crate) fn remove_if_there(
    removed: std::result::Result<(), MapError>,
) -> std::result::Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Sets each entry of an array to zero.
pub(crate) fn clear_array<V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    count: u32,
    zero: V,
) -> Result<()> {
    let keys: Vec<u32> = (0..count).collect();
    let values = vec![zero; keys.len()];
    write(ebpf, name, &keys, &values, |ebpf, index, zero| {
        set(ebpf, name, index, zero)
    })
}

pub(crate) fn total(
    map: &PerCpuArray<&MapData, Counter>,
    name: &'static str,
    index: u32,
) -> Result<Counter> {
    let values = map.get(&index, 0).map_err(map_error(name))?;
    Ok(values.iter().fold(Counter::default(), |sum, one| Counter {
        packets: sum.packets + one.packets,
        bytes: sum.bytes + one.bytes,
    }))
}

/// The same map with a new descriptor.
pub(crate) fn duplicate(name: &'static str, map: &Map) -> Result<Map> {
    let map_fd = data(name, map)?.fd().as_fd().try_clone_to_owned();
    let map_fd = map_fd.map_err(|source| map_error(name)(MapError::IoError(source)))?;
    let data = MapData::from_fd(map_fd).map_err(map_error(name))?;
    Ok(match map {
        Map::Array(_) => Map::Array(data),
        Map::PerCpuArray(_) => Map::PerCpuArray(data),
        Map::HashMap(_) => Map::HashMap(data),
        Map::LruHashMap(_) => Map::LruHashMap(data),
        _ => return Err(DatapathError::Missing(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let of = |entries: &[(u32, u32)]| entries.iter().copied().collect::<BTreeMap<_, _>>();
        let old = of(&[(1, 1), (2, 2), (4, 4), (5, 5), (9, 9)]);
        let new = of(&[(0, 0), (2, 2), (4, 40), (6, 6), (9, 9)]);
        let both = |old: &BTreeMap<u32, u32>, new: &BTreeMap<u32, u32>| {
            let (gone, changed) = difference(old, new);
            let gone: Vec<u32> = gone.into_iter().copied().collect();
            let changed: Vec<u32> = changed.into_iter().map(|it| *it.0).collect();
            (gone, changed)
        };
        assert_eq!(both(&old, &new), (vec![1, 5], vec![0, 4, 6]));
        assert_eq!(both(&old, &old), (vec![], vec![]));
        assert_eq!(both(&of(&[]), &of(&[(3, 3)])), (vec![], vec![3]));
        assert_eq!(both(&of(&[(3, 3)]), &of(&[])), (vec![3], vec![]));
    }
}
