//! The small languages of a policy document: each module has one kind of word, how it is read and
//! how it is written.

pub mod interface;
pub mod mac;
pub(crate) mod name;
pub(crate) mod prefix;
pub mod problem;
pub mod reason;
pub mod service;
