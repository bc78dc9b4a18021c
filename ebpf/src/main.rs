//! The kernel's side: maps, hooks, counters and events around [`decide`](wardline_ebpf::decide).
//!
//! Three programs judge packets: `xdp_ingress` and `tc_ingress` what enters a guarded port (one of
//! the two on each), `tc_egress` what leaves it. Two are run by the daemon: `clock` tells it the
//! kernel's time, `sweep` ends flows that have timed out.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this program is for the kernel: build it for bpfel-unknown-none");
}

#[cfg(target_arch = "bpf")]
mod kernel;
