//! Whether an interface may deliver VLAN tags outside the frame, where XDP does not see them.
#![expect(unsafe_code, reason = "ethtool's requests are ioctls")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use wardline_policy::inventory::Link;

/// Features by which a driver takes tags out of frames, and their names in `ethtool -K`.
const FEATURES: [(&str, &str); 2] = [
    ("rx-vlan-hw-parse", "rxvlan"),
    ("rx-vlan-stag-hw-parse", "rx-vlan-stag-hw-parse"),
];

/// Why tags may be outside the frame, and how to change that; none when they are inside.
pub fn tags_outside(link: &Link) -> Option<String> {
    let name = &link.name;
    match link.kind.as_deref() {
        // Hardware and tap devices report their features.
        None | Some("tun") => {}
        // The far end decides, not the setting of this end.
        Some("veth") => {
            return Some(
                "the far end of a veth pair holds VLAN tags outside the frame, where XDP does not \
                 see them"
                    .to_owned(),
            );
        }
        Some(kind) => {
            return Some(format!(
                "a {kind} interface may hold VLAN tags outside the frame, where XDP does not see \
                 them"
            ));
        }
    }
    let active = match active_features(name) {
        Ok(active) => active,
        Err(error) => {
            return Some(format!(
                "XDP does not see VLAN tags outside the frame, and whether {name} takes them out \
                 is not known: {error}"
            ));
        }
    };
    let (taking, setting) = FEATURES.into_iter().find_map(|(feature, setting)| {
        let taking = active.iter().find(|active| active.name == feature)?;
        Some((taking, setting))
    })?;
    let why = format!("{name} takes VLAN tags out of the frame, where XDP does not see them");
    Some(if taking.fixed {
        format!("{why}, and can't be told not to ({} is fixed)", taking.name)
    } else {
        format!("{why}; ethtool -K {name} {setting} off leaves them in")
    })
}

/// A feature that is on.
pub(crate) struct Active {
    pub(crate) name: String,
    /// Whether it can't be switched off.
    fixed: bool,
}

/// The features of an interface that are on.
pub(crate) fn active_features(interface: &str) -> io::Result<Vec<Active>> {
    const GET_FEATURES: u32 = 0x3a;
    /// Words in a block of 32 features: available, requested, active, never changed.
    const BLOCK: usize = 4;
    let names = feature_names(interface)?;
    // struct ethtool_gfeatures: command, count of blocks, blocks.
    let blocks = names.len().div_ceil(32);
    let mut features = vec![0; 2 + blocks * BLOCK];
    (features[0], features[1]) = (GET_FEATURES, blocks as u32);
    ethtool(interface, &mut features)?;

    let mut active = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        let block = &features[2 + index / 32 * BLOCK..];
        let is_in = |word: u32| word >> (index % 32) & 1 == 1;
        if is_in(block[2]) {
            let fixed = !is_in(block[0]) || is_in(block[3]);
            active.push(Active { name, fixed });
        }
    }
    Ok(active)
}

/// The kernel's names of an interface's features, by their number.
fn feature_names(interface: &str) -> io::Result<Vec<String>> {
    const GET_STRINGS: u32 = 0x1b;
    const GET_SET_INFO: u32 = 0x37;
    /// `ETH_SS_FEATURES`: the set of strings that names features, and how long each is.
    const SET: u32 = 4;
    const LENGTH: usize = 32;
    // struct ethtool_sset_info: command, reserved, mask of sets in 64 bits, count of the first.
    let [a, b, c, d, e, f, g, h] = (1u64 << SET).to_ne_bytes();
    let mask = [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes);
    let mut count = [GET_SET_INFO, 0, mask[0], mask[1], 0];
    ethtool(interface, &mut count)?;
    let count = count[4];
    // struct ethtool_gstrings: command, set, count, strings.
    let mut strings = vec![0; 3 + count as usize * LENGTH / 4];
    (strings[0], strings[1], strings[2]) = (GET_STRINGS, SET, count);
    ethtool(interface, &mut strings)?;
    let bytes: Vec<u8> = strings[3..]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let names = bytes.chunks_exact(LENGTH).map(|name| {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    });
    Ok(names.collect())
}

/// Runs an ethtool request, which the kernel fills in; the request itself says how long it is.
fn ethtool(interface: &str, request: &mut [u32]) -> io::Result<()> {
    // SAFETY: takes no pointer.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for this caller only.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= ifreq.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    // SAFETY: the name ends with a zero byte, because there was room for one; the request is as
    // long as the counts in it say, because its callers sized it by them.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut ifreq) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::observe::tests::in_a_namespace;

    /// An interface `lan1` of a kind; of none: hardware.
    pub(crate) fn link(kind: Option<&str>) -> Link {
        Link {
            number: 1,
            ifindex: 1,
            name: "lan1".to_owned(),
            mac: None,
            permanent: None,
            up: true,
            controller: None,
            parent: None,
            vlan: None,
            kind: kind.map(str::to_owned),
            header: Default::default(),
        }
    }

    #[test]
    fn says_what_would_leave_tags_in_the_frame() {
        in_a_namespace(async {
            let (connection, handle, _events) = rtnetlink::new_connection().expect("a socket");
            let task = tokio::spawn(connection);
            let pair = rtnetlink::LinkVeth::new("lan1", "far1").build();
            handle.link().add(pair).execute().await.expect("veth");
            // If it were hardware, it would have both features on.
            let hardware = || tags_outside(&link(None)).unwrap_or_default();
            assert!(hardware().ends_with("ethtool -K lan1 rxvlan off leaves them in"));
            switch_off("lan1", "rx-vlan-hw-parse").expect("a feature that can be switched");
            assert!(
                hardware().ends_with("ethtool -K lan1 rx-vlan-stag-hw-parse off leaves them in")
            );
            switch_off("lan1", "rx-vlan-stag-hw-parse").expect("a feature that can be switched");
            assert_eq!(tags_outside(&link(None)), None);
            assert_eq!(tags_outside(&link(Some("tun"))), None);
            // For these kinds their own setting does not matter.
            for kind in ["veth", "bond"] {
                assert!(tags_outside(&link(Some(kind))).is_some(), "{kind}");
            }
            let gone = Link {
                name: "gone".to_owned(),
                ..link(None)
            };
            assert!(tags_outside(&gone).is_some_and(|why| why.contains("is not known")));
            task.abort();
        });
    }

    pub(crate) fn switch_off(interface: &str, feature: &str) -> io::Result<()> {
        const SET_FEATURES: u32 = 0x3b;
        let names = feature_names(interface)?;
        let index = names.iter().position(|name| name == feature);
        let index = index.ok_or(io::ErrorKind::NotFound)?;
        let blocks = names.len().div_ceil(32);
        // struct ethtool_sfeatures: command, count of blocks, blocks: which, and whether on.
        let mut request = vec![0; 2 + blocks * 2];
        (request[0], request[1]) = (SET_FEATURES, blocks as u32);
        request[2 + index / 32 * 2] = 1 << (index % 32);
        ethtool(interface, &mut request)
    }
}
