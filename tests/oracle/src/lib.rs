//! A second implementation of what a policy says of a packet: slow, and without Wardline's code.
//!
//! ```text
//! random    policies, and packets that are likely to meet their rules
//! streams   frames for such a policy, one after the other
//! frames    how each frame is written
//! dissect   what a frame says
//! link      whose link-local addresses are
//! oracle    what the policy says of a packet
//! sequence  what must become of frames, given those before them
//! ```
#![expect(
    missing_docs,
    reason = "only tests call it, by names that say what they are"
)]

pub mod dissect;
pub mod frames;
pub mod link;
pub mod oracle;
pub mod random;
pub mod sequence;
pub mod streams;
