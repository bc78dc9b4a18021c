//! The difference between two documents, object by object.

use std::collections::BTreeMap;

use wardline_proto::{
    document::differing,
    v1::{ChangeKind, FieldChange, ObjectChange, Policy},
};

/// The objects that differ between two documents: removals, then additions, then changes, each by
/// kind and name.
pub fn changes(old: &Policy, new: &Policy) -> Vec<ObjectChange> {
    let mut changes = Vec::new();
    compare(&mut changes, "zone", &old.zones, &new.zones, |zone| {
        &zone.name
    });
    compare(&mut changes, "port", &old.ports, &new.ports, |port| {
        &port.interface
    });
    compare(
        &mut changes,
        "device",
        &old.devices,
        &new.devices,
        |device| &device.name,
    );
    compare(
        &mut changes,
        "service",
        &old.services,
        &new.services,
        |service| &service.name,
    );
    compare(
        &mut changes,
        "resolver",
        &old.resolvers,
        &new.resolvers,
        |resolver| &resolver.address,
    );
    compare(&mut changes, "rule", &old.rules, &new.rules, |rule| {
        &rule.name
    });
    let rank = |change: &ObjectChange| match change.change() {
        ChangeKind::Remove => 0,
        ChangeKind::Add => 1,
        ChangeKind::Change | ChangeKind::Unspecified => 2,
    };
    changes.sort_by_key(rank);
    changes
}

/// The objects that differ between two documents, and the fields that do, of as many as are listed in
/// full.
pub fn in_full(old: &Policy, new: &Policy) -> Vec<ObjectChange> {
    macro_rules! fields {
        ($list:ident, $name:ident, $wanted:expr) => {{
            let find = |policy: &'_ Policy| {
                let mut objects = policy.$list.iter();
                objects.position(|it| it.$name == $wanted)
            };
            match (find(old), find(new)) {
                (Some(was), Some(is)) => differing(&old.$list[was], &new.$list[is]),
                _ => Vec::new(),
            }
        }};
    }
    let mut changes = changes(old, new);
    let altered = changes.iter_mut();
    let altered = altered.filter(|it| it.change() == ChangeKind::Change);
    for change in altered.take(IN_FULL) {
        let name = &change.name;
        let fields = match change.kind.as_str() {
            "zone" => fields!(zones, name, *name),
            "port" => fields!(ports, interface, *name),
            "device" => fields!(devices, name, *name),
            "service" => fields!(services, name, *name),
            "resolver" => fields!(resolvers, address, *name),
            _ => fields!(rules, name, *name),
        };
        change.fields = fields
            .into_iter()
            .map(|(field, old, new)| FieldChange { field, old, new })
            .collect();
    }
    changes
}

/// Most objects whose fields are compared.
const IN_FULL: usize = 1000;

/// How many objects are added, changed and removed.
pub fn extent(changes: &[ObjectChange]) -> Extent {
    let count = |kind| changes.iter().filter(|it| it.change() == kind).count() as u32;
    Extent {
        added: count(ChangeKind::Add),
        changed: count(ChangeKind::Change),
        removed: count(ChangeKind::Remove),
    }
}

fn compare<T: PartialEq>(
    changes: &mut Vec<ObjectChange>,
    kind: &str,
    old: &[T],
    new: &[T],
    name: impl for<'a> Fn(&'a T) -> &'a String,
) {
    let named = |object: &'_ T| -> String { name(object).clone() };
    // Most of a document is the same in the next one; objects that are also at the same place need
    // no comparison by name.
    let same = old
        .iter()
        .zip(new)
        .take_while(|(was, is)| was == is)
        .count();
    let (old, new) = (&old[same..], &new[same..]);
    let same = old.iter().rev().zip(new.iter().rev());
    let same = same.take_while(|(was, is)| was == is).count();
    let (old, new) = (&old[..old.len() - same], &new[..new.len() - same]);
    let by_name = |objects: &'_ [T]| -> BTreeMap<String, usize> {
        let objects = objects.iter().enumerate();
        objects.map(|(at, object)| (named(object), at)).collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    let mut push = |name: &str, change: ChangeKind| {
        changes.push(ObjectChange {
            change: change.into(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            fields: Vec::new(),
        });
    };
    for (name, at) in &after {
        match before.get(name) {
            None => push(name, ChangeKind::Add),
            Some(was) if old[*was] != new[*at] => push(name, ChangeKind::Change),
            Some(_) => {}
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        push(name, ChangeKind::Remove);
    }
}

#[cfg(test)]
mod tests {
    use wardline_proto::v1::{Rule, Zone};

    use super::*;

    #[test]
    fn names_what_differs_and_nothing_else() {
        let zone = |name: &str, description: &str| Zone {
            name: name.into(),
            description: description.into(),
            ..Zone::default()
        };
        let old = Policy {
            zones: vec![zone("a", ""), zone("b", ""), zone("c", "")],
            ..Policy::default()
        };
        let new = Policy {
            zones: vec![zone("c", "x"), zone("a", "")],
            rules: vec![Rule {
                name: "r".into(),
                ..Rule::default()
            }],
            ..Policy::default()
        };
        let found: Vec<_> = changes(&old, &new)
            .into_iter()
            .map(|change| (change.change(), change.kind, change.name))
            .collect();
        let full = in_full(&old, &new);
        let field = FieldChange {
            field: "description".to_owned(),
            old: String::new(),
            new: "x".to_owned(),
        };
        assert_eq!(full[2].fields, [field]);
        assert_eq!(full[0].fields, []);
        let is = |change, kind: &str, name: &str| (change, kind.to_owned(), name.to_owned());
        assert_eq!(
            found,
            [
                is(ChangeKind::Remove, "zone", "b"),
                is(ChangeKind::Add, "rule", "r"),
                is(ChangeKind::Change, "zone", "c"),
            ]
        );
    }
}

/// How many objects a change concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Objects that are new.
    pub added: u32,
    /// Objects that stay, with other settings.
    pub changed: u32,
    /// Objects that go.
    pub removed: u32,
}
