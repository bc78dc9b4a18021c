//! The kernel's side: maps, hooks, counters and events around [`decide`](wardline_ebpf::decide).
//!
//! Three programs judge packets. `xdp_ingress` or `tc_ingress` judges what enters a guarded port, and
//! `tc_egress` what leaves it. Beside `xdp_ingress`, `tag_ingress` drops tagged packets that XDP has
//! taken for untagged. The daemon runs three more: `clock` returns the kernel's time, `sweep` ends flows
//! that have timed out, and `carry` takes over what another version has in its tables.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this program is for the kernel: build it for bpfel-unknown-none");
}

#[cfg(target_arch = "bpf")]
mod kernel;
