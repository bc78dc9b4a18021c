//! The names, places and sizes of the fields that another version may take over.
//!
//! The daemon pins this beside the maps, as text. Another version finds by name what it knows: a
//! field with the same name and size has the same meaning. So a field whose meaning changes gets
//! another name, and so does a map whose keys mean something else.

use core::mem::offset_of;

use crate::abi::{
    Address, Askings, Bucket, Clients, Counter, Flow, FlowEnds, FlowEntry, Fragment, FragmentKey,
    Learned, Named, Resolved, Seen, Settings,
};

/// A field of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Where it begins.
    pub offset: usize,
    /// Its size.
    pub size: usize,
}

/// A structure that maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Its name.
    pub name: &'static str,
    /// Its size.
    pub size: usize,
    /// All of its fields.
    pub fields: &'static [Field],
}

/// The size of what a function returns.
const fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! structures {
    ($($structure:ident { $($field:tt),* $(,)? })*) => {
        /// The structures of the maps that another version may take over.
        pub const STRUCTURES: &[Structure] = &[$(Structure {
            name: stringify!($structure),
            size: size_of::<$structure>(),
            fields: &[$(Field {
                name: stringify!($field),
                offset: offset_of!($structure, $field),
                size: size_of_field(|it: &$structure| &it.$field),
            }),*],
        }),*];
    };
}

structures! {
    Address { 0 }
    Bucket { lock, hops_valid, tags, last, ways, hops, reserved }
    FlowEntry { flow, ends }
    Flow { key, counts, bind, packets, stamp, state }
    FlowEnds { addresses, devices, rule, until, would, packets, bytes }
    Learned { holder, last, interface, zone, leased }
    Seen { last, interface }
    Resolved { selectors, until }
    Named { address, resolver, asker, until, reserved }
    Clients { hashes, last, transaction, asked_at, asked_on, wanted }
    Askings { places, rules, until }
    FragmentKey { source, destination, bind, identification, vlan, protocol }
    Fragment { ports, next, first }
    Counter { packets, bytes }
    Settings {
        buckets, flows, flows_per_device, unlisted, jiffies_per_second, tcp_unanswered,
        tcp_established, tcp_closing, udp, udp_answered, icmp, learned, fragment, failsafe, control,
        control_in_quarantine, learned_per_device, learned_per_port, addresses_per_name, name_least, seed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_described() {
        for Structure { name, size, fields } in STRUCTURES {
            let mut end = 0;
            for field in *fields {
                assert_eq!(
                    field.offset, end,
                    "{name}.{}: a field before it is missing",
                    field.name
                );
                end += field.size;
            }
            assert_eq!(end, *size, "{name}: its last field is missing");
        }
    }
}
