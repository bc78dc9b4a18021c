//! Which maps the object defines, which of them are pinned, and how large each is made.
//!
//! A map that is not pinned is lost when the daemon ends. So every map of the object is pinned,
//! unless [`UNPINNED`] names it.

use std::{collections::BTreeMap, path::Path};

use aya::maps::{MapData, MapInfo};
use aya_obj::Object;
use wardline_ebpf::abi::{Settings, UNLISTED};
use wardline_policy::{compile::ROUTER_MACS, limits::Limits};

use crate::error::{DatapathError, Result, map_error};

/// The programs and map definitions, as built for the kernel.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WARDLINE_OBJECT"));

/// Maps that are not pinned, because neither a later daemon nor a later packet needs their
/// contents.
const UNPINNED: &[&str] = &[
    // Scratch memory for one packet.
    "DESKS",
    // The same for what is taken over from another version.
    "CARRIED",
    "CARRYING",
    // The log of a development build.
    #[cfg(feature = "log")]
    "AYA_LOGS",
];

/// The form of a map: the properties in which a pinned map must match the object's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    kind: u32,
    key_size: u32,
    value_size: u32,
}

impl Form {
    fn of_pinned(info: &MapInfo) -> Result<Self> {
        Ok(Self {
            kind: info.map_type().map_err(map_error("pinned"))? as u32,
            key_size: info.key_size(),
            value_size: info.value_size(),
        })
    }

    fn compare(self, pinned: Self, path: &Path) -> Result<()> {
        if self == pinned {
            return Ok(());
        }
        Err(DatapathError::Incompatible(path.to_owned()))
    }
}

/// The maps that are pinned, by name.
///
/// # Errors
///
/// When the object can't be read.
pub(crate) fn pinned() -> Result<BTreeMap<String, Form>> {
    let maps = Object::parse(OBJECT)?.maps.into_iter();
    let pinned = maps.filter(|(name, _)| !UNPINNED.contains(&name.as_str()));
    let forms = pinned.map(|(name, map)| {
        let form = Form {
            kind: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
        };
        (name, form)
    });
    Ok(forms.collect())
}

/// Addresses that all names together may have: eight for each of as many names as there may be, unless
/// that is changed. Few names have many.
const NAMED: u32 = 131_072;

/// The maps whose size depends on the limits. All others have the size that the object gives.
pub(crate) fn entries(limits: &Limits) -> [(&'static str, u32); 18] {
    // Policy tables hold two revisions.
    let both = |entries: u32| entries.saturating_mul(2);
    // Routers and rules add addresses of their own.
    let macs = limits
        .devices
        .saturating_mul(2)
        .saturating_add(ROUTER_MACS as u32);
    let addresses = limits.devices.saturating_mul(4).saturating_add(4096);
    // Few devices use all the places that they have; where all do, the last find no room.
    let learned = limits.devices.saturating_mul(4);
    [
        ("MACS", both(macs)),
        ("ADDRESSES", both(addresses)),
        ("PREFIXES", both(65_536)),
        ("DEVICES", both(limits.devices)),
        ("PAIRS", both(1 << 20)),
        ("INTERVALS", 1 << 20),
        ("FLOWS", Settings::for_flows(limits.flows).buckets),
        ("QUOTAS", limits.devices + 2 + UNLISTED),
        ("CLIENTS", limits.devices + 2),
        ("ASKINGS", limits.devices + 2),
        ("LEARNED", learned),
        ("HELD", learned),
        ("NAMES", limits.names),
        ("NAMES_OF_OTHER", limits.names),
        ("NAMED", NAMED),
        ("RESOLVED", NAMED),
        ("SEEN", limits.devices + 2),
        ("RULES", limits.rules + 1),
    ]
}

/// Compares maps that an earlier daemon has pinned with those of the object, because the loader
/// does not.
///
/// # Errors
///
/// When one has another form, or the kernel does not say.
pub(crate) fn check(directory: &Path, pinned: &BTreeMap<String, Form>) -> Result<()> {
    for (name, form) in pinned {
        let path = directory.join(name);
        if !path.exists() {
            continue;
        }
        let info = MapData::from_pin(&path)
            .and_then(|map| map.info())
            .map_err(map_error("pinned"))?;
        form.compare(Form::of_pinned(&info)?, &path)?;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use std::collections::BTreeSet;

    use wardline_ebpf::abi;

    use super::*;

    fn defined() -> BTreeSet<String> {
        Object::parse(OBJECT).unwrap().maps.into_keys().collect()
    }

    #[test]
    fn each_map_is_pinned_or_left_unpinned_on_purpose() {
        let unpinned: BTreeSet<String> = UNPINNED.iter().map(ToString::to_string).collect();
        let pinned: BTreeSet<String> = pinned().unwrap().into_keys().collect();
        assert!(pinned.is_disjoint(&unpinned));
        // Every map of the object is on one of the lists, and no list names a map that the object
        // lacks.
        assert_eq!(&pinned | &unpinned, defined());
        assert!(pinned.contains("ACTIVE") && pinned.contains("FLOWS"));
        // The BPF file system allows no name with a dot.
        assert!(pinned.iter().all(|name| !name.contains('.')));
    }

    #[test]
    fn only_maps_of_the_object_are_sized_and_each_once() {
        let entries = entries(&Limits::default());
        let names: BTreeSet<String> = entries.iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names.len(), entries.len());
        assert!(names.is_subset(&defined()));
    }

    #[test]
    fn the_object_has_the_sizes_that_the_daemon_reads_with() {
        let pinned = pinned().unwrap();
        for (name, key, value) in [
            ("SETTINGS", 4, size_of::<Settings>()),
            ("FLOWS", 4, size_of::<abi::Bucket>()),
            (
                "ADDRESSES",
                size_of::<abi::AddressKey>(),
                size_of::<abi::End>(),
            ),
            // A trie's key begins with the length of the prefix.
            (
                "PREFIXES",
                4 + size_of::<abi::PrefixKey>(),
                size_of::<abi::End>(),
            ),
            ("RULES", 4, size_of::<abi::Counter>()),
            ("EVENTS", 0, 0),
        ] {
            let Form {
                key_size,
                value_size,
                ..
            } = pinned[name];
            assert_eq!(
                (key_size as usize, value_size as usize),
                (key, value),
                "{name}"
            );
        }
    }

    #[test]
    fn a_pinned_map_of_another_form_is_refused() {
        let form = Form {
            kind: 2,
            key_size: 4,
            value_size: 8,
        };
        let path = Path::new("/pins/CLOCK");
        assert!(form.compare(form, path).is_ok());
        for other in [
            Form { kind: 1, ..form },
            Form {
                key_size: 8,
                ..form
            },
            Form {
                value_size: 4,
                ..form
            },
        ] {
            let refused = form.compare(other, path);
            assert!(matches!(refused, Err(DatapathError::Incompatible(at)) if at == path));
        }
    }
}
