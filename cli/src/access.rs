//! Temporary access: quarantine, release, grant and revoke.

use wardline_proto::v1::{GrantRequest, QuarantineRequest, ReleaseRequest, RevokeRequest};

use crate::{
    args::{Grant, Quarantine, Release, Revoke},
    exit::{Exit, Failure},
    policy::changed,
    session::Session,
};

/// Cuts a device or a port off.
///
/// # Errors
/// There is no such device or guarded port, or the router refuses or does not answer.
pub(crate) async fn quarantine(session: &Session, args: Quarantine) -> Result<Exit, Failure> {
    let Quarantine { whom, reason } = args;
    let request = QuarantineRequest {
        device: whom.device.unwrap_or_default(),
        reason,
        port: whom.port.unwrap_or_default(),
    };
    let change = session
        .ask(request, async |mut client, it| client.quarantine(it).await)
        .await?;
    changed(session, &change)
}

/// Ends a quarantine.
///
/// # Errors
/// It is not in quarantine, or the router refuses or does not answer.
pub(crate) async fn release(session: &Session, args: Release) -> Result<Exit, Failure> {
    let Release { whom, why } = args;
    let request = ReleaseRequest {
        device: whom.device.unwrap_or_default(),
        reason: why.reason,
        port: whom.port.unwrap_or_default(),
    };
    let change = session
        .ask(request, async |mut client, it| client.release(it).await)
        .await?;
    changed(session, &change)
}

/// Adds an allow rule with a lifetime.
///
/// # Errors
/// The rule names an object that does not exist, or the router refuses or does not answer.
pub(crate) async fn grant(session: &Session, args: Grant) -> Result<Exit, Failure> {
    let Grant {
        from,
        to,
        services,
        lifetime,
        reason,
        name,
        keep_in_quarantine,
    } = args;
    let request = GrantRequest {
        from,
        to,
        services,
        for_s: lifetime,
        reason,
        name,
        keep_in_quarantine,
    };
    let change = session
        .ask(request, async |mut client, it| client.grant(it).await)
        .await?;
    changed(session, &change)
}

/// Ends a grant.
///
/// # Errors
/// There is no such grant, or the router refuses or does not answer.
pub(crate) async fn revoke(session: &Session, args: Revoke) -> Result<Exit, Failure> {
    let Revoke { name, why } = args;
    let reason = why.reason;
    let request = RevokeRequest { name, reason };
    let change = session
        .ask(request, async |mut client, it| client.revoke(it).await)
        .await?;
    changed(session, &change)
}
