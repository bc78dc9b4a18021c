//! What a MUD file says: its URL, and the entries of its two lists. Nothing here knows the site.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    entry::{Direction, Entry, Family},
    json::Node,
    words::{MudUrl, plain, shown},
};

/// Most bytes of a file.
pub const LARGEST_FILE: usize = 1 << 20;
/// Most entries of all lists of a file together.
const MOST_ENTRIES: usize = 2000;
/// Most notices about a file.
const MOST_NOTICES: usize = 50;

/// A file, as far as it could be read.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) url: MudUrl,
    pub(crate) systeminfo: String,
    /// In the file's order: those from the device, then those to it.
    pub(crate) entries: Vec<Entry>,
    /// What is odd, and what follows.
    pub(crate) notices: Vec<String>,
}

/// The kinds of lists.
#[derive(Clone, Copy)]
enum Kind {
    Ip(Family),
    Ethernet,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it is refused whole, with the place.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > LARGEST_FILE {
            return Err(format!("it has more than {LARGEST_FILE} bytes"));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
        let node = Node::read(text)?;
        let mut notices = Vec::new();
        let mud = node
            .get("ietf-mud:mud")
            .ok_or("ietf-mud:mud: missing; this is no MUD file of RFC 8520")?;
        match mud.get("mud-version").and_then(Node::number) {
            Some(1) => {}
            _ => return Err("ietf-mud:mud.mud-version: 1 is expected".to_owned()),
        }
        let url = mud.get("mud-url").and_then(Node::text);
        let url = url.ok_or("ietf-mud:mud.mud-url: missing")?;
        let url = MudUrl::read(url).map_err(|why| format!("ietf-mud:mud.mud-url: {why}"))?;
        if url.authority.split('.').any(|it| it.starts_with("xn--")) {
            let host = &url.authority;
            notices.push(format!(
                "the host {host} has letters of other alphabets, which may look like ours"
            ));
        }
        for (name, _) in mud.fields().filter(|it| !KNOWN.contains(&it.0)) {
            let name = shown(name);
            notices.push(format!(
                "ietf-mud:mud.{name}: not known; it changes nothing"
            ));
        }
        match mud.get("is-supported") {
            Some(Node::Bool(true)) => {}
            Some(Node::Bool(false)) => {
                notices.push("its maker does not support the device any more".to_owned());
            }
            _ => notices.push("is-supported: missing, or neither true nor false".to_owned()),
        }
        if let Some(place) = mud.get("mud-signature").and_then(Node::text) {
            let place = shown(place);
            notices.push(format!("the file says that its signature is at {place}"));
        }
        let systeminfo = mud.get("systeminfo").and_then(Node::text);
        let mut file = Self {
            url,
            systeminfo: plain(systeminfo.unwrap_or_default(), 60),
            entries: Vec::new(),
            notices,
        };
        let lists = file.lists(&node)?;
        let mut used = BTreeSet::new();
        for (direction, field) in [
            (Direction::FromDevice, "from-device-policy"),
            (Direction::ToDevice, "to-device-policy"),
        ] {
            for name in named_lists(mud, field)? {
                let (at, list) = lists.get(name).ok_or_else(|| {
                    format!("ietf-mud:mud.{field}: there is no list {}", shown(name))
                })?;
                used.insert(name);
                file.read_list(direction, *at, list)?;
            }
        }
        for name in lists.keys().filter(|name| !used.contains(**name)) {
            let name = shown(name);
            file.notices.push(format!(
                "the list {name} is for neither direction; it changes nothing"
            ));
        }
        file.notices.truncate(MOST_NOTICES);
        Ok(file)
    }

    /// The lists by name, with their places.
    fn lists<'a>(
        &mut self,
        node: &'a Node,
    ) -> Result<BTreeMap<&'a str, (usize, &'a Node)>, String> {
        const RIGHT: &str = "ietf-access-control-list:acls";
        const OLD: &str = "ietf-access-control-list:access-lists";
        let container = match (node.get(RIGHT), node.get(OLD)) {
            (Some(_), Some(_)) => return Err(format!("{RIGHT} and {OLD} are both there")),
            (Some(container), None) => container,
            (None, Some(container)) => {
                self.notices
                    .push(format!("{OLD} is the name of a draft; read as {RIGHT}"));
                container
            }
            (None, None) => return Err(format!("{RIGHT}: missing")),
        };
        let mut lists = BTreeMap::new();
        for (at, list) in container
            .get("acl")
            .map_or(&[][..], Node::entries)
            .iter()
            .enumerate()
        {
            let name = list.get("name").and_then(Node::text);
            let name = name.ok_or_else(|| format!("{RIGHT}.acl[{at}].name: missing"))?;
            if lists.insert(name, (at, list)).is_some() {
                let name = shown(name);
                return Err(format!("{RIGHT}.acl[{at}].name: {name} is given twice"));
            }
        }
        Ok(lists)
    }

    fn read_list(&mut self, direction: Direction, at: usize, list: &Node) -> Result<(), String> {
        let place = format!("ietf-access-control-list:acls.acl[{at}]");
        let kind = list.get("type").and_then(Node::text);
        let kind = match kind.map(|it| it.strip_prefix("ietf-access-control-list:").unwrap_or(it)) {
            Some("ipv4-acl-type") => Kind::Ip(Family::V4),
            Some("ipv6-acl-type") => Kind::Ip(Family::V6),
            Some("eth-acl-type" | "ethernet-acl-type") => Kind::Ethernet,
            Some(other) => {
                let other = shown(other);
                return Err(format!(
                    "{place}.type: {other} is none of ipv4-acl-type, ipv6-acl-type"
                ));
            }
            None => {
                return Err(format!(
                    "{place}.type: missing; one of ipv4-acl-type, ipv6-acl-type"
                ));
            }
        };
        let aces = list.get("aces").and_then(|it| it.get("ace"));
        let aces = aces.map_or(&[][..], Node::entries);
        if self.entries.len() + aces.len() > MOST_ENTRIES {
            return Err(format!("more than {MOST_ENTRIES} entries"));
        }
        for (index, ace) in aces.iter().enumerate() {
            let name = ace.get("name").and_then(Node::text).unwrap_or_default();
            let entry = match kind {
                Kind::Ip(family) => Entry::read(direction, family, ace)
                    .map_err(|why| format!("{place}.aces.ace[{index}]: {why}"))?,
                Kind::Ethernet => Entry::unread(direction, ace, "it is about frames, not about IP"),
            };
            self.entries.push(Entry {
                name: match plain(name, 100) {
                    name if name.trim().is_empty() => format!("{at}.{index}"),
                    name => name,
                },
                ..entry
            });
        }
        Ok(())
    }
}

/// What the container has, by the module of RFC 8520.
const KNOWN: [&str; 14] = [
    "mud-version",
    "mud-url",
    "last-update",
    "mud-signature",
    "cache-validity",
    "is-supported",
    "systeminfo",
    "mfg-name",
    "model-name",
    "firmware-rev",
    "software-rev",
    "documentation",
    "from-device-policy",
    "to-device-policy",
];

/// The names of the lists of a direction.
fn named_lists<'a>(mud: &'a Node, field: &str) -> Result<Vec<&'a str>, String> {
    let Some(policy) = mud.get(field) else {
        return Ok(Vec::new());
    };
    let lists = policy
        .get("access-lists")
        .and_then(|it| it.get("access-list"));
    let lists = lists.map_or(&[][..], Node::entries).iter();
    let names: Option<Vec<&str>> = lists
        .map(|it| it.get("name").and_then(Node::text))
        .collect();
    let names = names.ok_or_else(|| format!("ietf-mud:mud.{field}: a list without a name"))?;
    let different: BTreeSet<&&str> = names.iter().collect();
    if different.len() != names.len() {
        return Err(format!("ietf-mud:mud.{field}: a list is named twice"));
    }
    Ok(names)
}
