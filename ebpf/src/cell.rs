//! Integers in maps that several processors write: [`Cell32`] and [`Cell64`].
//!
//! The BPF target has no `AtomicU32` and no `fetch_add`, though the kernel has both; on the host
//! these are the standard library's atomics. All accesses are relaxed: none of them orders other
//! memory accesses. Where order matters, the bucket's lock provides it.
#![expect(
    unsafe_code,
    reason = "shared mutable integers, below what the target's core offers"
)]

use core::cell::UnsafeCell;

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// The lowest bit, for use as an index.
///
/// The compiler may not compute it in another way: before 6.10 the verifier does not know that the
/// XOR or OR of two single bits is a single bit.
#[inline(always)]
pub fn bit(value: usize) -> usize {
    opaque(value) & 1
}

/// The lowest three bits, for use with `get` on an array.
///
/// Hidden from the compiler, which would otherwise turn the array's bounds check into "is not
/// seven", and a verifier before 6.8 learns nothing from that.
#[inline(always)]
pub fn way(value: u32) -> usize {
    opaque(value as usize & 7)
}

/// The same value, opaque to the compiler: what is computed from it is computed after this.
#[inline(always)]
pub fn opaque(value: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    let value = {
        let mut value = value;
        // SAFETY: copies a register to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) value) };
        value
    };
    value
}

macro_rules! cell {
    ($(#[$doc:meta])* $name:ident, $integer:ty, $atomic:ident) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Default, FromBytes, IntoBytes, KnownLayout)]
        pub struct $name(UnsafeCell<$integer>);

        // SAFETY: every access is one load, store or add of the whole integer.
        unsafe impl Sync for $name {}

        impl $name {
            /// A cell that holds this.
            #[inline(always)]
            pub const fn new(value: $integer) -> Self {
                Self(UnsafeCell::new(value))
            }

            /// What it holds.
            #[inline(always)]
            pub fn load(&self) -> $integer {
                #[cfg(target_arch = "bpf")]
                // SAFETY: aligned and initialised; one load instruction.
                return unsafe { core::ptr::read_volatile(self.0.get()) };
                #[cfg(not(target_arch = "bpf"))]
                // SAFETY: aligned, initialised and never accessed but through atomics.
                return unsafe { core::sync::atomic::$atomic::from_ptr(self.0.get()) }
                    .load(core::sync::atomic::Ordering::Relaxed);
            }

            /// Replaces what it holds.
            #[inline(always)]
            pub fn store(&self, value: $integer) {
                #[cfg(target_arch = "bpf")]
                // SAFETY: aligned; one store instruction.
                unsafe { core::ptr::write_volatile(self.0.get(), value) };
                #[cfg(not(target_arch = "bpf"))]
                // SAFETY: as in `load`.
                unsafe { core::sync::atomic::$atomic::from_ptr(self.0.get()) }
                    .store(value, core::sync::atomic::Ordering::Relaxed);
            }

            /// Adds, wrapping around; no other processor's addition is lost.
            #[inline(always)]
            pub fn add(&self, value: $integer) {
                #[cfg(target_arch = "bpf")]
                // SAFETY: aligned; one locked add instruction.
                unsafe {
                    core::intrinsics::atomic_xadd::<
                        $integer,
                        $integer,
                        { core::intrinsics::AtomicOrdering::Relaxed },
                    >(self.0.get(), value);
                };
                #[cfg(not(target_arch = "bpf"))]
                // SAFETY: as in `load`.
                unsafe { core::sync::atomic::$atomic::from_ptr(self.0.get()) }
                    .fetch_add(value, core::sync::atomic::Ordering::Relaxed);
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.load().fmt(f)
            }
        }
    };
}

cell! {
    /// 32 bits, shared.
    Cell32, u32, AtomicU32
}
cell! {
    /// 64 bits, shared.
    Cell64, u64, AtomicU64
}
