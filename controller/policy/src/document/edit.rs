//! Edits a document: puts objects by name, and deletes objects.

use std::collections::{BTreeMap, HashMap};

use prost::Message as _;
use wardline_proto::v1::{Device, EditRequest, Policy, Port, Resolver, Rule, Service, Zone};

use super::Document;
use crate::words::problem::Problem;

/// Objects to put into a document, and objects to take out of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edit {
    /// A document with the objects to put; its version may be left out.
    pub put: Option<Document>,
    /// Objects to delete, as `rule/web`.
    pub delete: Vec<String>,
}

/// The bytes do not hold an edit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EditError(prost::DecodeError);

impl Edit {
    /// The edit as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let Self { put, delete } = self.clone();
        let message = EditRequest {
            put,
            delete,
            ..EditRequest::default()
        };
        message.encode_to_vec()
    }

    /// Decodes what [`encode`](Self::encode) returned.
    ///
    /// # Errors
    /// When the bytes do not hold an edit.
    pub fn decode(bytes: &[u8]) -> Result<Self, EditError> {
        let message = EditRequest::decode(bytes).map_err(EditError)?;
        Ok(Self {
            put: message.put,
            delete: message.delete,
        })
    }
}

/// Where the objects of an edit are in the edited document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edited {
    /// By kind and position in the document: the position in the edit.
    put: BTreeMap<(&'static str, usize), usize>,
}

/// Edits a document: replaces an object of the same name, adds any other, and deletes what the edit
/// names.
///
/// # Errors
///
/// The problems of the edit, by its fields: an object that is put twice, or one to delete that is
/// not there. The document is half edited then.
pub fn change(policy: &mut Policy, edit: &Edit) -> Result<Edited, Vec<Problem>> {
    let mut edited = Edited::default();
    let mut problems = Vec::new();
    let mut gone: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for (at, object) in edit.delete.iter().enumerate() {
        match object.split_once('/') {
            Some((kind, name)) if KINDS.contains(&kind) => {
                gone.entry(kind).or_default().push((at, name));
            }
            _ => problems.push(Problem {
                path: format!("delete[{at}]"),
                message: format!(
                    "{object:?} is no KIND/NAME; KIND is one of {}",
                    KINDS.join(", ")
                ),
            }),
        }
    }
    if let Some(put) = &edit.put {
        if put.version > 1 {
            problems.push(Problem {
                path: "version".to_owned(),
                message: format!("{} is not known; write 1, or leave it out", put.version),
            });
        }
        policy.version = 1;
    }
    let none = Policy::default();
    let put = edit.put.as_ref().unwrap_or(&none);
    let mut merge = Merge {
        gone,
        edited: &mut edited,
        problems: &mut problems,
    };
    merge.objects("zone", &mut policy.zones, &put.zones);
    merge.objects("port", &mut policy.ports, &put.ports);
    merge.objects("device", &mut policy.devices, &put.devices);
    merge.objects("service", &mut policy.services, &put.services);
    merge.objects("rule", &mut policy.rules, &put.rules);
    merge.objects("resolver", &mut policy.resolvers, &put.resolvers);
    if problems.is_empty() {
        Ok(edited)
    } else {
        Err(problems)
    }
}

/// Problems of the edited document, with places that the author of the edit knows: an object of the
/// edit by its position there, any other by its name.
pub fn placed(policy: &Policy, edited: &Edited, problems: Vec<Problem>) -> Vec<Problem> {
    let place = |path: &str| -> Option<String> {
        let (list, rest) = path.split_once('[')?;
        let (position, rest) = rest.split_once(']')?;
        let position: usize = position.parse().ok()?;
        let kind = KINDS.into_iter().find(|kind| list == format!("{kind}s"))?;
        if let Some(at) = edited.put.get(&(kind, position)) {
            return Some(format!("{list}[{at}]{rest}"));
        }
        let name = match kind {
            "zone" => &policy.zones.get(position)?.name,
            "port" => &policy.ports.get(position)?.interface,
            "device" => &policy.devices.get(position)?.name,
            "service" => &policy.services.get(position)?.name,
            "resolver" => &policy.resolvers.get(position)?.address,
            _ => &policy.rules.get(position)?.name,
        };
        Some(format!("{kind}/{name}{rest}"))
    };
    problems
        .into_iter()
        .map(|problem| Problem {
            path: place(&problem.path).unwrap_or(problem.path),
            message: problem.message,
        })
        .collect()
}

/// Finds what still refers to objects that an edit has deleted: one problem for each object.
pub fn used(policy: &Policy, edit: &Edit) -> Vec<Problem> {
    /// References to one object that the problem names.
    const NAMED: usize = 5;
    let mut users: HashMap<&str, Vec<String>> = edit
        .delete
        .iter()
        .map(|object| (object.as_str(), Vec::new()))
        .collect();
    let mut note = |object: String, user: &dyn Fn() -> String| {
        if let Some(users) = users.get_mut(object.as_str()) {
            users.push(user());
        }
    };
    for port in &policy.ports {
        let tagged = port.vlans.iter().map(|vlan| &vlan.zone);
        for zone in tagged.chain([&port.zone]) {
            note(format!("zone/{zone}"), &|| {
                format!("port/{}", port.interface)
            });
        }
    }
    for device in &policy.devices {
        let user = || format!("device/{}", device.name);
        note(format!("zone/{}", device.zone), &user);
        // A glob may carry the zone too; only checking the whole document finds out.
        note(format!("port/{}", device.port), &user);
    }
    for rule in &policy.rules {
        let user = || format!("rule/{}", rule.name);
        let ends = rule.from.iter().chain(&rule.to);
        for selector in ends.chain(&rule.answers_from) {
            note(selector.replacen(':', "/", 1), &user);
        }
        for service in &rule.services {
            note(format!("service/{service}"), &user);
        }
    }
    edit.delete
        .iter()
        .filter_map(|object| {
            let mut users = users.get(object.as_str())?.clone();
            users.sort();
            users.dedup();
            let more = users.len().saturating_sub(NAMED);
            users.truncate(NAMED);
            let more = if more == 0 {
                String::new()
            } else {
                format!(" and {more} more")
            };
            let list = users.join(", ");
            (!users.is_empty()).then(|| Problem {
                path: object.clone(),
                message: format!("is used by {list}{more}; delete or change them with it"),
            })
        })
        .collect()
}

/// The message about an object that is not there.
pub const MISSING: &str = "is not there";

const KINDS: [&str; 6] = ["zone", "port", "device", "service", "rule", "resolver"];

/// An object with a name that is unique among its kind.
trait Named: Clone + PartialEq {
    fn name(&self) -> &str;
}

macro_rules! named {
    ($($kind:ty: $name:ident),*) => {
        $(impl Named for $kind {
            fn name(&self) -> &str {
                &self.$name
            }
        })*
    };
}

named!(Zone: name, Port: interface, Device: name, Service: name, Rule: name, Resolver: address);

struct Merge<'a> {
    gone: BTreeMap<&'a str, Vec<(usize, &'a str)>>,
    edited: &'a mut Edited,
    problems: &'a mut Vec<Problem>,
}

impl Merge<'_> {
    fn objects<T: Named>(&mut self, kind: &'static str, objects: &mut Vec<T>, put: &[T]) {
        let gone = self.gone.remove(kind).unwrap_or_default();
        let mut wanted: HashMap<&str, Option<usize>> = HashMap::new();
        let names = put
            .iter()
            .map(T::name)
            .chain(gone.iter().map(|(_, name)| *name));
        wanted.extend(names.map(|name| (name, None)));
        for (position, object) in objects.iter().enumerate() {
            if let Some(at) = wanted.get_mut(object.name()) {
                *at = Some(position);
            }
        }
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (at, object) in put.iter().enumerate() {
            if let Some(first) = seen.insert(object.name(), at) {
                self.problems.push(Problem {
                    path: format!("{kind}s[{at}]"),
                    message: format!("{:?} is put at {kind}s[{first}] already", object.name()),
                });
                continue;
            }
            let position = match wanted.get(object.name()).copied().flatten() {
                Some(position) => {
                    if objects[position] != *object {
                        objects[position] = object.clone();
                    }
                    position
                }
                None => {
                    objects.push(object.clone());
                    objects.len() - 1
                }
            };
            self.edited.put.insert((kind, position), at);
        }
        let mut positions = Vec::new();
        for (at, name) in gone {
            match wanted.get_mut(name).and_then(Option::take) {
                Some(position) if !seen.contains_key(name) => positions.push(position),
                Some(_) => self.problems.push(Problem {
                    path: format!("delete[{at}]"),
                    message: format!("{kind}/{name} is put by the same edit"),
                }),
                None => self.problems.push(Problem {
                    path: format!("{kind}/{name}"),
                    message: MISSING.to_owned(),
                }),
            }
        }
        if positions.is_empty() {
            return;
        }
        positions.sort_unstable();
        let mut position = 0;
        objects.retain(|_| {
            position += 1;
            positions.binary_search(&(position - 1)).is_err()
        });
        // Deletions have moved the objects that were put towards the front.
        self.edited.put = std::mem::take(&mut self.edited.put)
            .into_iter()
            .map(|((of, position), at)| {
                let before = if of == kind {
                    positions.partition_point(|gone| *gone < position)
                } else {
                    0
                };
                ((of, position - before), at)
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn zone(name: &str, description: &str) -> Zone {
        Zone {
            name: name.to_owned(),
            description: description.to_owned(),
            ..Zone::default()
        }
    }

    fn document() -> Policy {
        Policy {
            version: 1,
            zones: vec![zone("a", ""), zone("b", ""), zone("c", "")],
            devices: vec![Device {
                name: "d".to_owned(),
                zone: "b".to_owned(),
                ..Device::default()
            }],
            ..Policy::default()
        }
    }

    fn edit(zones: Vec<Zone>, delete: &[&str]) -> Edit {
        Edit {
            put: Some(Policy {
                zones,
                ..Policy::default()
            }),
            delete: delete.iter().map(ToString::to_string).collect(),
        }
    }

    fn lines(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn puts_by_name_and_deletes() {
        let mut policy = document();
        let change_all = edit(
            vec![zone("e", ""), zone("c", "new"), zone("b", "")],
            &["zone/a"],
        );
        let edited = change(&mut policy, &change_all).unwrap();
        let zones = [zone("b", ""), zone("c", "new"), zone("e", "")];
        assert_eq!(policy.zones, zones);
        assert_eq!(Edit::decode(&change_all.encode()), Ok(change_all));
        // Objects of the edit have their place there, all others their name.
        let problem = |path: &str| Problem {
            path: path.to_owned(),
            message: "x".to_owned(),
        };
        let problems = ["zones[0].name", "zones[2]", "devices[0].zone", "version"].map(problem);
        assert_eq!(
            lines(&placed(&policy, &edited, problems.to_vec())),
            [
                "zones[2].name: x",
                "zones[0]: x",
                "device/d.zone: x",
                "version: x"
            ]
        );
    }

    #[test]
    fn refuses_what_is_not_there_or_said_twice() {
        let refused = |edit: &Edit| lines(&change(&mut document(), edit).unwrap_err());
        assert_eq!(
            refused(&edit(vec![], &["zone/x"])),
            ["zone/x: is not there"]
        );
        assert_eq!(
            refused(&edit(vec![], &["zone/a", "zone/a"])),
            ["zone/a: is not there"]
        );
        assert_eq!(
            refused(&edit(vec![zone("a", "")], &["zone/a"])),
            ["delete[0]: zone/a is put by the same edit"]
        );
        assert_eq!(
            refused(&edit(vec![zone("n", ""), zone("n", "")], &[])),
            ["zones[1]: \"n\" is put at zones[0] already"]
        );
        assert_eq!(
            refused(&edit(vec![], &["flow/1"])),
            [
                "delete[0]: \"flow/1\" is no KIND/NAME; KIND is one of zone, port, device, service, rule, resolver"
            ]
        );
    }

    #[test]
    fn names_who_uses_what_was_deleted() {
        let mut policy = document();
        let edit = edit(vec![], &["zone/b", "zone/a"]);
        change(&mut policy, &edit).unwrap();
        assert_eq!(
            lines(&used(&policy, &edit)),
            ["zone/b: is used by device/d; delete or change them with it"]
        );
    }
}
