//! Access to the daemon, changes of policy and how they are taken back, and recovery from crashes.

mod access;
mod authority;
mod backup;
mod confirm;
mod crash;
mod damage;
mod disk;
mod documents;
mod failsafe;
mod identity;
mod interfaces;
mod journal;
mod labels;
mod logs;
mod mud;
mod parts;
mod plan;
mod ports;
mod quarantine;
mod recover;
mod revisions;
mod service;
mod shell;
mod years;
