//! Which hooks a port has, and how they are put on it.

use wardline_datapath::{
    Hook,
    attach::{Hooks, Way},
    error::AttachError,
    offload,
};
use wardline_policy::{
    intent::{Attach, Intent, Port},
    inventory::{Header, Link},
};

use super::state::Attached;

/// How hooks are put on so many ports that have none: for each link the kernel waits for a grace period of
/// RCU, some ten milliseconds. Filters take none, and links replace them later.
pub(super) fn way(ports: usize) -> Way {
    if ports > 1 { Way::Clsact } else { Way::Best }
}

/// Whether everything at a port is only observed, so that nothing may be dropped there.
pub(super) fn observes(intent: &Intent, port: &Port) -> bool {
    let mut zones = port.zone.iter().chain(port.vlans.values());
    zones.all(|zone| intent.zones[zone.0].observe)
}

/// Attaches a port in the best way that its policy and its interface allow; returns which, and why.
///
/// # Errors
///
/// Why it can't be attached; then it has the hooks that it had before.
pub(super) fn attach(
    hooks: &Hooks,
    way: Way,
    link: &Link,
    port: &Port,
) -> Result<(Attached, String), String> {
    const TC: &[Hook] = &[Hook::TcIngress, Hook::TcEgress];
    let ifindex = link.ifindex;
    let bare = match link.header {
        Header::Ethernet => None,
        Header::Bare => Some("no XDP: its packets have no Ethernet header".to_owned()),
        Header::Other(kind) => {
            let why = format!("its packets begin neither with Ethernet nor with IP (type {kind})");
            return Err(why);
        }
    };
    let outside = offload::tags_outside(link);
    let tagged = !port.vlans.is_empty();
    // A port without VLANs drops tagged frames. XDP does that only for tags that it sees, so
    // another hook drops the rest.
    // XDP comes first: where it can't be had, nothing else was done for it.
    let xdp: &[Hook] = match &outside {
        Some(_) if !tagged => &[Hook::Xdp, Hook::Tags, Hook::TcEgress],
        _ => &[Hook::Xdp, Hook::TcEgress],
    };
    let blind = bare.or(outside.filter(|_| tagged));
    // If TC judges already, a foreign program that appears on the XDP hook is no reason to stop
    // guarding.
    let at_tc = || {
        let on = hooks.on(ifindex).unwrap_or_default();
        TC.iter().all(|hook| on.contains(hook)) && !hooks.is_shut(ifindex).unwrap_or(false)
    };
    let attach = |wanted: &[Hook]| hooks.attach(way, ifindex, wanted);
    let failed = match (port.attach, blind) {
        (Attach::Auto, Some(blind)) => match attach(TC) {
            Ok(()) => return Ok((Attached::Tc, blind)),
            Err(error) => error.to_string(),
        },
        (Attach::Auto, None) => match attach(xdp) {
            Ok(()) => return Ok((Attached::Xdp, String::new())),
            Err(taken @ AttachError::Taken(_)) if !at_tc() => taken.to_string(),
            Err(no_xdp) => match attach(TC) {
                Ok(()) => return Ok((Attached::Tc, format!("no XDP: {no_xdp}"))),
                Err(error) => error.to_string(),
            },
        },
        (Attach::Tc, _) => match attach(TC) {
            Ok(()) => return Ok((Attached::Tc, "asked for".to_owned())),
            Err(error) => error.to_string(),
        },
        (Attach::Xdp, Some(blind)) if link.header == Header::Bare => {
            format!("{blind}; leave out `attach: xdp`, and it is judged at TC")
        }
        (Attach::Xdp, Some(blind)) => blind,
        (Attach::Xdp, None) => match attach(xdp) {
            Ok(()) => return Ok((Attached::Xdp, "asked for".to_owned())),
            Err(error) => error.to_string(),
        },
    };
    Err(failed)
}
