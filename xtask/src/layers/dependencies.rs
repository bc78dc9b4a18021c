//! What the crates of the workspace depend on.

use cargo_metadata::{Dependency, DependencyKind, Package};

use super::{Layer, Reserved};

/// A crate of the workspace.
pub(super) struct Crate {
    name: String,
    /// What it is built with, tests apart: crates, and their features as `crate/feature`.
    uses: Vec<String>,
}

impl From<&Package> for Crate {
    fn from(package: &Package) -> Self {
        let built = |it: &&Dependency| it.kind != DependencyKind::Development;
        let dependencies = package.dependencies.iter().filter(built);
        let named = dependencies.flat_map(|it| {
            let features = it.features.iter();
            let features = features.map(|feature| format!("{}/{feature}", it.name));
            std::iter::once(it.name.clone()).chain(features)
        });
        // What a feature of its own turns on. `dep:` and `?` are how Cargo spells it.
        let switched = package.features.values().flatten();
        let switched = switched
            .filter(|it| it.contains('/'))
            .map(|it| it.replace('?', ""));
        Self {
            name: package.name.to_string(),
            uses: named.chain(switched).collect(),
        }
    }
}

/// Every dependency that a layer may not have; also crates that the table forgets, or that the
/// workspace lacks.
pub(super) fn check(
    crates: &[Crate],
    layers: &[Layer],
    free: &[&str],
    reserved: &[Reserved],
) -> Vec<String> {
    let is_there = |name: &str| crates.iter().any(|it| it.name == name);
    let placed = || layers.iter().map(|it| it.name).chain(free.iter().copied());
    let missing = placed().filter(|name| !is_there(name)).map(|name| {
        format!("{name}: the workspace has no such crate; take it out of the table, or rename it")
    });
    let forgotten = crates
        .iter()
        .filter(|it| !placed().any(|name| name == it.name))
        .map(|it| {
            format!(
                "{}: it is in no layer; give it a place in the table",
                it.name
            )
        });
    let mut found: Vec<String> = missing.chain(forgotten).collect();
    for member in crates {
        let Some(layer) = layers.iter().find(|it| it.name == member.name) else {
            continue;
        };
        let mut wrong: Vec<String> = member
            .uses
            .iter()
            .filter_map(|used| complaint(layer, used, is_there(used), reserved))
            .collect();
        wrong.dedup();
        found.extend(wrong);
    }
    found
}

fn complaint(layer: &Layer, used: &str, is_member: bool, reserved: &[Reserved]) -> Option<String> {
    let name = layer.name;
    if is_member {
        if layer.builds_on.contains(&used) {
            return None;
        }
        let cure = match layer.builds_on {
            [] => "take what it needs as an argument".to_owned(),
            below => format!(
                "move what it needs into {}, or take it as an argument",
                below.join(" or ")
            ),
        };
        return Some(format!(
            "{name} depends on {used}, but {}; {cure}",
            layer.why
        ));
    }
    let is_of = |row: &&Reserved| row.crates.iter().any(|pattern| matches(pattern, used));
    let row = reserved.iter().find(is_of)?;
    if row.layers.contains(&name) {
        return None;
    }
    Some(format!(
        "{name} depends on {used}, but {}; use it in {}, and hand on what comes of it",
        row.why,
        row.layers.join(" or "),
    ))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: &[Layer] = &[
        Layer {
            name: "low",
            builds_on: &[],
            why: "it is the ground",
        },
        Layer {
            name: "high",
            builds_on: &["low"],
            why: "it is the roof",
        },
    ];
    const RESERVED: &[Reserved] = &[Reserved {
        crates: &["net-*", "low/user"],
        layers: &["high"],
        why: "the ground has no wires",
    }];

    fn found(crates: &[(&str, &[&str])]) -> Vec<String> {
        let crates: Vec<Crate> = crates
            .iter()
            .map(|(name, uses)| Crate {
                name: (*name).to_owned(),
                uses: uses.iter().map(|it| (*it).to_owned()).collect(),
            })
            .collect();
        check(&crates, LAYERS, &["tests"], RESERVED)
    }

    #[test]
    fn what_builds_downwards_is_right() {
        let crates: [(&str, &[&str]); 3] = [
            ("low", &["serde"]),
            ("high", &["low", "low/user", "net-core"]),
            ("tests", &["low", "high", "net-core"]),
        ];
        assert_eq!(found(&crates), [""; 0]);
    }

    #[test]
    fn a_dependency_that_a_layer_may_not_have_is_told_with_the_cure() {
        assert_eq!(
            found(&[
                ("low", &["high", "net-core", "low/user"]),
                ("high", &["tests"]),
                ("tests", &[]),
            ]),
            [
                "low depends on high, but it is the ground; take what it needs as an argument",
                "low depends on net-core, but the ground has no wires; use it in high, and hand \
                 on what comes of it",
                "low depends on low/user, but the ground has no wires; use it in high, and hand \
                 on what comes of it",
                "high depends on tests, but it is the roof; move what it needs into low, or take \
                 it as an argument",
            ]
        );
    }

    #[test]
    fn a_crate_that_is_missing_or_has_no_place_is_wrong() {
        assert_eq!(
            found(&[("low", &[]), ("new", &[]), ("tests", &[])]),
            [
                "high: the workspace has no such crate; take it out of the table, or rename it",
                "new: it is in no layer; give it a place in the table",
            ]
        );
    }
}
