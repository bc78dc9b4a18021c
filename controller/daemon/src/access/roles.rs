//! The peer of a connection, and the role that each call requires.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use crate::config::Role;

/// The peer at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its identity: `uid:0` on the Unix socket, `cert:NAME` over TLS.
    pub actor: String,
    /// Its role; none: it may do nothing.
    pub role: Option<Role>,
    /// Its address: `unix:PID`, or address and port.
    pub address: String,
    /// When the connection was made.
    pub since: Instant,
}

/// The sender of one call; each request that reaches a handler has it as an extension.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The peer that is connected.
    pub peer: Peer,
    /// The request's id: the client's, or a new one.
    pub request_id: String,
    /// Why, in the actor's words; the handler reads it from the message and passes it to the audit.
    pub reason: Arc<OnceLock<String>>,
}

/// The properties of a call that are known before its message is read.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    path: &'static str,
    /// The lowest role that may make it.
    pub role: Role,
    /// What it costs.
    pub weight: Weight,
    /// Whether it changes what is in force; if so, the audit records it.
    pub changes: bool,
    /// Whether it is made even while it can't be recorded.
    pub urgent: bool,
}

/// What a call costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Small in both directions.
    Light,
    /// A document or a table is transferred.
    Heavy,
}

impl Call {
    /// Its name without that of its service.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

/// Every call that is served. All others are refused.
pub const CALLS: &[Call] = {
    use Role::{Admin, Operator, Viewer};
    use Weight::{Heavy, Light};
    &[
        looks("/wardline.v1.Segmentation/GetStatus", Viewer, Light),
        looks("/wardline.v1.Segmentation/Plan", Viewer, Heavy),
        changes("/wardline.v1.Segmentation/Apply", Admin, Heavy),
        changes("/wardline.v1.Segmentation/Edit", Admin, Heavy),
        changes("/wardline.v1.Segmentation/Rename", Admin, Light),
        changes("/wardline.v1.Segmentation/Confirm", Admin, Light),
        changes("/wardline.v1.Segmentation/Rollback", Admin, Light),
        looks("/wardline.v1.Segmentation/GetPolicy", Viewer, Heavy),
        looks("/wardline.v1.Segmentation/ListRevisions", Viewer, Light),
        looks("/wardline.v1.Segmentation/Explain", Viewer, Light),
        looks("/wardline.v1.Segmentation/ExplainDrops", Viewer, Light),
        acts("/wardline.v1.Segmentation/Quarantine", Operator, Light),
        acts("/wardline.v1.Segmentation/Release", Operator, Light),
        changes("/wardline.v1.Segmentation/Grant", Operator, Light),
        changes("/wardline.v1.Segmentation/Revoke", Operator, Light),
        looks("/wardline.v1.Segmentation/ListDevices", Viewer, Heavy),
        looks("/wardline.v1.Segmentation/ListUnknown", Viewer, Heavy),
        changes("/wardline.v1.Segmentation/AdoptDevice", Admin, Light),
        changes("/wardline.v1.Segmentation/ImportDevices", Admin, Heavy),
        looks("/wardline.v1.Segmentation/ListInterfaces", Viewer, Light),
        looks("/wardline.v1.Segmentation/ListServices", Viewer, Light),
        looks("/wardline.v1.Segmentation/CheckMud", Viewer, Heavy),
        changes("/wardline.v1.Segmentation/ImportMud", Admin, Heavy),
        looks("/wardline.v1.Segmentation/ListNames", Viewer, Heavy),
        looks("/wardline.v1.Segmentation/AssessMud", Viewer, Heavy),
        looks("/wardline.v1.Segmentation/DraftMud", Viewer, Heavy),
        looks("/wardline.v1.Segmentation/ListFlows", Viewer, Heavy),
        looks("/wardline.v1.Segmentation/GetCounters", Viewer, Heavy),
        looks("/wardline.v1.Segmentation/WatchEvents", Viewer, Light),
        looks("/wardline.v1.Segmentation/ReadAudit", Viewer, Heavy),
        looks("/wardline.v1.Segmentation/GetBackup", Admin, Heavy),
        looks("/grpc.health.v1.Health/Check", Viewer, Light),
        looks("/grpc.health.v1.Health/Watch", Viewer, Light),
        looks(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Viewer,
            Light,
        ),
        looks(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            Viewer,
            Light,
        ),
    ]
};

const fn looks(path: &'static str, role: Role, weight: Weight) -> Call {
    Call {
        path,
        role,
        weight,
        changes: false,
        urgent: false,
    }
}

const fn changes(path: &'static str, role: Role, weight: Weight) -> Call {
    Call {
        path,
        role,
        weight,
        changes: true,
        urgent: false,
    }
}

const fn acts(path: &'static str, role: Role, weight: Weight) -> Call {
    Call {
        urgent: true,
        ..changes(path, role, weight)
    }
}

/// Why a call is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum PermissionDenied {
    /// There is no such call.
    Unknown,
    /// The peer has no role.
    NoRole,
    /// The peer's role is not enough.
    Role {
        /// The peer's role.
        has: Role,
        /// The role that the call requires.
        wants: Role,
    },
}

impl fmt::Display for PermissionDenied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("this router has no such call"),
            Self::NoRole => f.write_str("no role; api.roles names who has one, and uid 0 is admin"),
            Self::Role { has, wants } => write!(f, "role {has}; this takes {wants}"),
        }
    }
}

/// The call behind a path, if there is one.
pub fn call(path: &str) -> Option<&'static Call> {
    CALLS.iter().find(|call| call.path == path)
}

/// The call behind a path, if a role may make it.
///
/// # Errors
/// Why not. A peer without a role is not told which calls exist.
pub fn authorise(path: &str, role: Option<Role>) -> Result<&'static Call, PermissionDenied> {
    let has = role.ok_or(PermissionDenied::NoRole)?;
    let call = call(path).ok_or(PermissionDenied::Unknown)?;
    if has < call.role {
        return Err(PermissionDenied::Role {
            has,
            wants: call.role,
        });
    }
    Ok(call)
}

/// The revisions before and after a change; the answer has them as an extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revisions {
    /// In force before.
    pub before: u64,
    /// In force after.
    pub after: u64,
}

/// Most bytes of one message: a policy of a hundred thousand devices has about 20 MB.
pub const LARGEST_MESSAGE: usize = 64 << 20;

impl Weight {
    /// Tokens that a call takes from the actor's bucket.
    pub(crate) fn tokens(self) -> u32 {
        match self {
            Self::Light => 1,
            Self::Heavy => 10,
        }
    }

    /// The largest request, in bytes, with its framing.
    pub(crate) fn largest(self) -> usize {
        match self {
            Self::Light => 64 << 10,
            Self::Heavy => LARGEST_MESSAGE + 64,
        }
    }

    /// How long the request may take to arrive.
    pub(crate) fn patience(self) -> Duration {
        match self {
            Self::Light => Duration::from_secs(30),
            Self::Heavy => Duration::from_secs(120),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// The paths of every call of every service that is served.
    fn served() -> BTreeSet<String> {
        [
            wardline_proto::DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ]
        .into_iter()
        .flat_map(|set| FileDescriptorSet::decode(set).expect("descriptors").file)
        .flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().flat_map(move |service| {
                let prefix = format!("/{package}.{}/", service.name());
                service
                    .method
                    .into_iter()
                    .map(move |method| prefix.clone() + method.name())
            })
        })
        .collect()
    }

    #[test]
    fn every_call_that_is_served_has_exactly_one_role() {
        let table: Vec<String> = CALLS.iter().map(|call| call.path.to_owned()).collect();
        assert_eq!(table.iter().cloned().collect::<BTreeSet<_>>(), served());
        assert_eq!(table.len(), served().len(), "a call is listed twice");
    }

    #[test]
    fn what_is_not_listed_is_refused_whatever_the_role() {
        for path in [
            "",
            "/",
            "/wardline.v1.Segmentation/",
            "/wardline.v1.Segmentation/apply",
            "/wardline.v1.Segmentation/Apply/",
            "//wardline.v1.Segmentation/Apply",
            "/wardline.v1.Segmentation/Apply?x",
            "/wardline.v2.Segmentation/GetStatus",
        ] {
            assert_eq!(
                authorise(path, Some(Role::Admin)),
                Err(PermissionDenied::Unknown),
                "{path}"
            );
            assert_eq!(
                authorise(path, None),
                Err(PermissionDenied::NoRole),
                "{path}"
            );
        }
    }

    #[test]
    fn a_role_may_what_it_says_and_no_more() {
        for call in CALLS {
            for role in [Role::Viewer, Role::Operator, Role::Admin] {
                assert_eq!(
                    authorise(call.path, Some(role)).is_ok(),
                    role >= call.role,
                    "{role} {}",
                    call.path
                );
            }
            assert_eq!(authorise(call.path, None), Err(PermissionDenied::NoRole));
            // A role that may only read changes nothing.
            assert!(!call.changes || call.role > Role::Viewer, "{}", call.path);
        }
    }
}
