//! What needs the kernel, and so root: `cargo xtask test` builds the programs and runs it.
//!
//! `packets` shows frames to the programs by `BPF_PROG_TEST_RUN`; `live` sends them between hosts in
//! network namespaces; `management` is about who changes policy, and what comes of it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod live;
mod management;
mod packets;
