//! The lookups of a judgement: in maps in the kernel, in plain collections on the host.

use crate::abi::{
    Address, AddressKey, Askings, Bucket, Clients, Denial, End, Failsafe, Forwarding, Fragment,
    FragmentKey, Inquiry, Interval, Learned, Mac, Named, Port, PrefixKey, Quota, Resolved, Routes,
    Seen, Set, Settings, Watched,
};
use crate::cell::{Cell32, Cell64};
use crate::name_buffer::NameBuffer;

/// The tables of both slots, and the state that packets leave behind.
///
/// Everything that can be missing is an `Option`. A packet is dropped when something that its
/// judgement needs is missing.
pub trait Lookup {
    /// The slot of the revision in force, if there is one. Asked once for each packet.
    fn active(&self) -> Option<u32>;
    /// Settings that hold for every packet.
    fn settings(&self) -> Option<&Settings>;
    /// A failsafe entry, by index.
    fn failsafe(&self, index: u32) -> Option<&Failsafe>;
    /// The current tick.
    fn tick(&self) -> u32;

    /// An interface, by [`Port::index`].
    fn port(&self, index: u32) -> Option<&Port>;
    /// Whether packets may be forwarded in the driver through an interface, by its index.
    fn forwarding(&self, interface: u32) -> Option<&Forwarding>;
    /// What the daemon reports of routes and neighbours.
    fn routes(&self) -> Option<&Routes>;
    /// A zone by [`vlan_key`](crate::abi::vlan_key), or whether a
    /// [`carries_key`](crate::abi::carries_key) or [`ethertype_key`](crate::abi::ethertype_key)
    /// exists.
    fn place(&self, key: u64) -> Option<u32>;
    /// A zone's settings.
    fn zone(&self, index: u32) -> Option<u32>;
    /// A MAC's device, by [`mac_key`](crate::abi::mac_key).
    fn mac(&self, key: u64) -> Option<&Mac>;
    /// The end for an address that the policy names exactly.
    fn address(&self, key: &AddressKey) -> Option<&End>;
    /// The end for the longest prefix of an address.
    fn prefix(&self, key: &PrefixKey) -> Option<&End>;
    /// What an address stands for, as [`policy::find_end`](crate::policy::find_end) finds it; false
    /// when it stands for nothing.
    fn end(&self, slot: u32, address: &Address, end: &mut End) -> bool;
    /// What policy says about a device at any of its addresses, by `device << 1 | slot`.
    fn device(&self, key: u32) -> Option<&End>;
    /// What a pair of names may do, by [`pair_key`](crate::abi::pair_key).
    fn pair(&self, key: u64) -> Option<&Set>;
    /// One interval.
    fn interval(&self, index: u32) -> Option<&Interval>;
    /// An epoch, by `slot * EPOCH_CELLS + cell`.
    fn epoch(&self, index: u32) -> Option<u32>;

    /// One bucket of the flow table.
    fn bucket(&self, index: u32) -> Option<&Bucket>;
    /// Counts packets of a flow for the rule that has admitted it.
    fn credit(&self, rule: u32, packets: u32, bytes: u64);
    /// Takes a bucket's lock. Until it is released no other function may be called.
    fn lock(&self, bucket: &Bucket);
    /// Releases a bucket's lock.
    fn unlock(&self, bucket: &Bucket);
    /// The client identifiers of a device; for an unlisted one, device 0, those of its MAC.
    fn clients(&self, device: u32, mac: u64) -> Option<&Clients>;
    /// The questions of a device to groups; for an unlisted one, device 0, those of its MAC. With
    /// `makes`, a place for them if there is none.
    fn askings(&self, device: u32, mac: u64, makes: bool) -> Option<&Askings>;
    /// What an account has used.
    fn quota(&self, account: u32) -> Option<&Quota>;
    /// A number that changes whenever the tables of a slot do.
    fn generation(&self, slot: u32) -> Option<u64>;
    /// A place for a denial, by set and way; none where denials are not kept.
    fn denial(&self, set: u32, way: u32) -> Option<&Denial>;
    /// The tags of the denials of a set: [`Sought::denial_tag`](crate::flows::Sought::denial_tag)
    /// in 16 bits for each way; 0: there is no denial.
    fn denial_tags(&self, set: u32) -> Option<&Cell64>;
    /// How many flows have been opened to which a denial in this set could apply.
    fn flows_opened(&self, set: u32) -> Option<&Cell32>;
    /// Adds packets for which no event was sent to the count of a denial's next event.
    fn add_suppressed(&self, denial: &Denial, packets: u32);
    /// A cell of [`gauge`](crate::abi::gauge).
    fn gauge(&self, cell: u32) -> Option<&Cell32>;
    /// Who has learned an address.
    fn learned(&self, address: &Address) -> Option<&Learned>;
    /// A place for one more address of a [`holder`](crate::abi::holder()), as
    /// [`learning::find_place`](crate::learning::find_place) finds it.
    fn find_place(&self, holder: u64, v4: bool) -> u32;
    /// Notes whose an address is, unless it is already someone's; false then, and when there is no
    /// room.
    fn note_learned(&self, address: &Address, learned: Learned) -> bool;
    /// Forgets whose an address is; false when nobody's was known.
    fn forget_learned(&self, address: &Address) -> bool;
    /// The address in a place, by [`held_key`](crate::abi::held_key).
    fn held(&self, key: u64) -> Option<&Address>;
    /// Puts an address into a place, if that is empty; false when it is not, and when there is no
    /// room.
    fn hold(&self, key: u64, address: &Address) -> bool;
    /// Empties a place; false when it is empty.
    fn release(&self, key: u64) -> bool;
    /// How many learned addresses there are, by [`learned_index`](crate::abi::learned_index).
    fn learned_at(&self, index: u32) -> Option<&Cell32>;
    /// A fragmented packet whose first part has passed.
    fn fragment(&self, key: &FragmentKey) -> Option<&Fragment>;
    /// Notes a fragmented packet whose first part has passed; false when there is no room.
    fn note_fragment(&self, key: &FragmentKey, fragment: &Fragment) -> bool;
    /// Forgets a fragmented packet.
    fn forget_fragment(&self, key: &FragmentKey);
    /// Tick until which an interface adopts flows that ran before it was guarded.
    fn adopts_until(&self, interface: u32) -> u32;
    /// A note of a flow that was opened a moment ago, by index:
    /// [`rewritten`](crate::decide) says what it holds.
    fn admission(&self, index: u32) -> Option<&Cell64>;
    /// Whether the policy names a resolver with this address.
    fn is_resolver(&self, key: &AddressKey) -> bool;
    /// The selectors of a name, which begins at an offset of the buffer.
    fn watched(&self, slot: u32, name: &NameBuffer, at: usize) -> Option<&Watched>;
    /// How much the senders have asked that share a cell: `tick << 32 | count`.
    fn inquirer(&self, cell: u32) -> Option<&Cell64>;
    /// Notes a question to a resolver; false when there is no room.
    fn note_inquiry(&self, hash: u64, inquiry: &Inquiry) -> bool;
    /// A question to a resolver that was noted.
    fn inquiry(&self, hash: u64) -> Option<&Inquiry>;
    /// Forgets a question to a resolver.
    fn forget_inquiry(&self, hash: u64);
    /// The selectors that an address is known for. With `makes`, a place for them if there is none.
    fn resolved(&self, address: &Address, makes: bool) -> Option<&Resolved>;
    /// Forgets an address.
    fn forget_resolved(&self, address: &Address);
    /// An address of a selector, by [`named_key`](crate::abi::named_key).
    fn named(&self, key: u64) -> Option<&Named>;
    /// Puts an address of a selector in its place; false when there is no room.
    fn name_address(&self, key: u64, named: &Named) -> bool;
    /// Where a device was last seen.
    fn seen(&self, device: u32) -> Option<&Seen>;
}
