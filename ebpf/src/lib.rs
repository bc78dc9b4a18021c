//! The code that judges packets in the kernel, and the bytes that kernel and daemon share.
//!
//! A **packet** enters or leaves through a guarded **port**. [`decide::ingress`] and
//! [`decide::egress`] turn its bytes and the **tables** of one **revision** into a **verdict**: it
//! passes or is dropped, for exactly one **reason**, by a **rule** if a rule decided. A passing
//! packet belongs to a **flow**. The same source is compiled for XDP, for TC and for the host
//! (`explain`, tests); it is generic over how bytes are read and how tables are looked up.
//!
//! Nothing here allocates, panics, reads a clock or knows a map type. Only `main.rs` knows the
//! kernel.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "see cell.rs"))]

pub mod abi;
pub mod cell;
pub mod decide;
pub mod described;
pub mod events;
pub mod flows;
pub mod forward;
pub mod guards;
pub mod learning;
pub mod lookup;
pub mod name_buffer;
pub mod names;
pub mod packet;
pub mod policy;

#[cfg(feature = "user")]
#[expect(
    unsafe_code,
    reason = "aya's marker for what may be copied to and from the kernel"
)]
mod pod {
    use zerocopy::{FromBytes, Immutable, IntoBytes};

    use crate::abi;

    /// The conditions for aya to copy a type: no padding, valid for any bytes, no shared
    /// mutability.
    const fn is_plain<T: Copy + FromBytes + Immutable + IntoBytes>() {}

    macro_rules! pod {
        ($($type:ty),* $(,)?) => { $(
            const _: () = is_plain::<$type>();
            // SAFETY: it is plain, as the compiler has just found.
            unsafe impl aya::Pod for $type {}
        )* };
    }

    pod!(
        abi::Address,
        abi::AddressKey,
        abi::Carried,
        abi::Counter,
        abi::End,
        abi::EventKey,
        abi::Failsafe,
        abi::Forwarding,
        abi::FragmentKey,
        abi::Interval,
        abi::Inquiry,
        abi::Mac,
        abi::NameText,
        abi::Named,
        abi::Port,
        abi::PrefixKey,
        abi::Routes,
        abi::Set,
        abi::Settings,
        abi::Watched,
    );
}
