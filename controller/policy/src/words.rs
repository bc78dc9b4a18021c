//! The notations in a policy document: each module reads and writes one kind of word.

pub mod cure;
pub mod domain;
pub mod interface;
pub mod label;
pub mod mac;
pub(crate) mod name;
pub(crate) mod prefix;
pub mod problem;
pub mod reason;
pub mod service;
