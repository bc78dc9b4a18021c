//! What the far end of a virtual port may leave outside its frames, so that what is judged is not all
//! that there is; and how to turn that off there.
//!
//! No setting of this end changes it, and the far end is often in another network namespace or a
//! virtual machine. So these are warnings for people, and nothing is refused because of them.

use std::collections::BTreeMap;

use wardline_policy::inventory::Link;

use crate::{netlink, offload};

/// Features by which a far end leaves a checksum to be written later, and the setting of
/// `ethtool -K` for them. A feature's name begins so.
const CHECKSUM: [(&str, &str); 1] = [("tx-checksum-", "tx")];

/// Features by which a far end holds VLAN tags outside the frame.
const TAGS: [(&str, &str); 2] = [
    ("tx-vlan-hw-insert", "txvlan"),
    ("tx-vlan-stag-hw-insert", "tx-vlan-stag-hw-insert"),
];

/// Warnings about ports, by the index of their interface; with each port, whether it has
/// fast-forward. A text is the same for all ports that it holds for alike.
pub fn warnings(ports: &[(&Link, bool)]) -> BTreeMap<u32, Vec<String>> {
    let mut warnings = BTreeMap::new();
    let is_virtual = |link: &Link| matches!(link.kind.as_deref(), Some("veth" | "tun"));
    if !ports.iter().any(|(link, _)| is_virtual(link)) {
        return warnings;
    }
    // What the kernel does not say is taken as possible.
    let devices = netlink::devices().unwrap_or_default();
    let devices: BTreeMap<u32, netlink::Device> =
        devices.into_iter().map(|it| (it.index, it)).collect();
    for (link, forwards) in ports {
        let device = devices.get(&link.ifindex);
        let texts = match link.kind.as_deref() {
            Some("veth") => {
                let far = device.and_then(|it| devices.get(&it.lower?));
                of_veth(far.map(|it| it.name.as_str()), *forwards)
            }
            Some("tun") => of_tun(device.and_then(|it| it.virtio)),
            _ => Vec::new(),
        };
        if !texts.is_empty() {
            warnings.insert(link.ifindex, texts);
        }
    }
    warnings
}

/// Those about a veth; `far` is its far end, if that is in this namespace.
fn of_veth(far: Option<&str>, forwards: bool) -> Vec<String> {
    let mut texts = Vec::new();
    if let Some(command) = command(far, &CHECKSUM) {
        texts.push(format!("{LATE_CHECKSUM}; at the far end: {command}"));
    }
    if forwards && let Some(command) = command(far, &TAGS) {
        texts.push(format!(
            "fast-forward takes a frame for untagged whose VLAN tag its sender holds outside it; \
             at the far end: {command}"
        ));
    }
    texts
}

const LATE_CHECKSUM: &str = "a sender may have the kernel write a checksum into a frame after it was judged, over a port \
     number perhaps";

/// Those about a tun or tap interface; `virtio`: whether packets have a header of virtio, by which
/// the far end asks for a checksum.
fn of_tun(virtio: Option<bool>) -> Vec<String> {
    if virtio == Some(false) {
        return Vec::new();
    }
    vec![format!(
        "{LATE_CHECKSUM}; open the interface without the header of virtio (in QEMU: vnet_hdr=off)"
    )]
}

/// The command that switches these features off at a far end; none if all are off there.
fn command(far: Option<&str>, features: &[(&str, &str)]) -> Option<String> {
    let active = far.and_then(|far| offload::active_features(far).ok());
    let mut settings = Vec::new();
    for (feature, setting) in features {
        let is_on = |active: &Vec<offload::Active>| {
            active.iter().any(|active| active.name.starts_with(feature))
        };
        if active.as_ref().is_none_or(is_on) {
            settings.push(format!("{setting} off"));
        }
    }
    let interface = far.unwrap_or("INTERFACE");
    (!settings.is_empty()).then(|| format!("ethtool -K {interface} {}", settings.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observe::{observe, tests::in_a_namespace},
        offload::tests::switch_off,
    };

    #[test]
    fn says_what_the_far_end_of_a_veth_may_do() {
        in_a_namespace(async {
            let (connection, handle, _events) = rtnetlink::new_connection().expect("a socket");
            let task = tokio::spawn(connection);
            let pair = rtnetlink::LinkVeth::new("lan1", "far1").build();
            handle.link().add(pair).execute().await.expect("veth");
            let inventory = observe().await.expect("a list");
            let link = inventory.link("lan1").expect("the veth");
            let said = |forwards| {
                let mut all = warnings(&[(link, forwards)]);
                all.remove(&link.ifindex).unwrap_or_default()
            };
            let [checksum, tags] = &said(true)[..] else {
                panic!("{:?}", said(true));
            };
            assert!(checksum.ends_with("at the far end: ethtool -K far1 tx off"));
            let both = "ethtool -K far1 txvlan off tx-vlan-stag-hw-insert off";
            assert!(tags.ends_with(both), "{tags}");
            assert_eq!(&said(false), std::slice::from_ref(checksum));

            for feature in ["tx-checksum-ip-generic", "tx-checksum-sctp"] {
                assert_eq!(said(false).len(), 1);
                switch_off("far1", feature).expect("a feature");
            }
            assert_eq!(said(false), [""; 0]);
            for feature in ["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"] {
                assert_eq!(said(true).len(), 1);
                switch_off("far1", feature).expect("a feature");
            }
            assert_eq!(said(true), [""; 0]);
            task.abort();
        });
    }

    #[test]
    fn of_a_far_end_that_is_not_here_everything_is_possible() {
        let texts = of_veth(None, true);
        assert!(texts[0].ends_with("ethtool -K INTERFACE tx off"));
        assert!(texts[1].ends_with("INTERFACE txvlan off tx-vlan-stag-hw-insert off"));
    }

    #[test]
    fn a_tap_can_ask_for_a_checksum_by_its_header_of_virtio() {
        assert_eq!(of_tun(Some(false)), [""; 0]);
        for virtio in [None, Some(true)] {
            assert!(of_tun(virtio)[0].ends_with("vnet_hdr=off)"));
        }
    }
}
