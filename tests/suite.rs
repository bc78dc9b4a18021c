//! Tests that need the kernel, and so root: `cargo xtask test` builds the programs and runs them.
//!
//! `packets` shows frames to the programs by `BPF_PROG_TEST_RUN`; `live` sends them between hosts
//! in network namespaces; `management` tests access to the daemon, changes of policy, and crashes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod live;
mod management;
mod packets;
