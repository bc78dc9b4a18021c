//! Attackers who use what is allowed: each attack fails, and the honest use next to it works.

mod broadcast;
mod control;
mod covert;
mod events;
mod flows;
mod forward;
mod guests;
mod learning;
mod misdirected;
mod neighbours;
mod uplink;
