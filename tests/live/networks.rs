//! Networks as people have them: each works without Wardline, and works guarded and observed.

mod guests;
mod macvlan;
