//! What is known of MACs: what they say of themselves by DHCP, where and when they were seen, and
//! what was dropped of those that no device lists. All of it is said by who is not trusted: it is
//! bounded, it is shown, and nothing is decided by it.

mod kept;
mod known;
mod message;
mod notice;
mod seen;

pub use self::{kept::remember, known::Known, notice::notice, seen::Seen};
