//! Modules that import each other in a circle.
//!
//! A module and those below it are one subject in several files: `packet::ipv4` may use what `packet`
//! defines, while `packet` calls it. That alone is no circle. The crate's root is above everything, so
//! it has no such right: what its modules share has a module of its own.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
};

use super::source::{Named, Place, ROOT, Source};

/// The circles of a target, the shortest first, each as it is printed: the modules, then for each
/// import its place and the name that it brings.
pub(crate) fn find(source: &Source) -> Vec<String> {
    let mut imports: BTreeMap<String, BTreeMap<String, Named>> = BTreeMap::new();
    for named in source.named() {
        let Place::Here { module, .. } = &named.place else {
            continue;
        };
        if *module != named.module && !is_below(&named.module, module) {
            let from = imports.entry(named.module.clone()).or_default();
            from.entry(module.clone()).or_insert(named);
        }
    }
    let mut circles = BTreeSet::new();
    for (from, targets) in &imports {
        for to in targets.keys() {
            circles.extend(shortest(&imports, to, from).map(turned));
        }
    }
    let mut circles: Vec<_> = circles.into_iter().collect();
    circles.sort_by_key(Vec::len);
    circles.iter().map(|it| shown(&imports, it)).collect()
}

/// Whether a module is within another that is not the root.
fn is_below(module: &str, other: &str) -> bool {
    let rest = module.strip_prefix(other);
    !other.is_empty() && rest.is_some_and(|rest| rest.starts_with("::"))
}

type Imports = BTreeMap<String, BTreeMap<String, Named>>;

/// The shortest way by imports from one module to another.
fn shortest(imports: &Imports, from: &str, to: &str) -> Option<Vec<String>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut open = VecDeque::from([from]);
    while let Some(module) = open.pop_front() {
        if module == to {
            let steps = std::iter::successors(Some(to), |it| before.get(it).copied());
            let mut way: Vec<String> = steps.map(str::to_owned).collect();
            way.reverse();
            return Some(way);
        }
        for next in imports.get(module).into_iter().flat_map(BTreeMap::keys) {
            if next != from && !before.contains_key(next.as_str()) {
                before.insert(next, module);
                open.push_back(next);
            }
        }
    }
    None
}

/// The same circle, beginning with the module that is first by name, so that each is found once.
fn turned(mut circle: Vec<String>) -> Vec<String> {
    let first = (0..circle.len()).min_by_key(|i| &circle[*i]).unwrap_or(0);
    circle.rotate_left(first);
    circle
}

fn shown(imports: &Imports, circle: &[String]) -> String {
    let label = |module: &str| match module {
        "" => ROOT.to_owned(),
        name => name.to_owned(),
    };
    let ring: Vec<&String> = circle.iter().chain(circle.first()).collect();
    let labels: Vec<String> = ring.iter().map(|it| label(it)).collect();
    let mut text = labels.join(" → ");
    for pair in ring.windows(2) {
        let Some(import) = imports.get(pair[0]).and_then(|it| it.get(pair[1])) else {
            continue;
        };
        let name = match &import.place {
            Place::Here { name, .. } if !name.is_empty() => name.clone(),
            _ => "the module".to_owned(),
        };
        let (from, to) = (label(pair[0]), label(pair[1]));
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "\n    {from} → {to}: {}:{} names {name}",
            import.file.display(),
            import.line
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::source::made_up, *};

    #[test]
    fn a_circle_is_told_with_each_import() {
        let source = made_up(&[
            ("", "mod a; mod b; mod c;\nuse a::A;"),
            ("a", "use crate::b::B;\npub struct A;"),
            ("b", "pub struct B;\nfn f() { crate::c::g(); }"),
            ("c", "\n\npub fn g() -> super::a::A { todo!() }"),
        ]);
        assert_eq!(
            find(&source),
            ["a → b → c → a\n    \
              a → b: src/a.rs:1 names B\n    \
              b → c: src/b.rs:2 names g\n    \
              c → a: src/c.rs:3 names A"]
        );
    }

    #[test]
    fn a_module_and_those_below_it_are_one_subject() {
        let parent = ("p", "mod c;\npub struct P;\nfn f() { c::g(); }");
        let child = ("p::c", "use super::P;\npub fn g() {}");
        assert_eq!(find(&made_up(&[("", "mod p;"), parent, child])), [""; 0]);
        // By way of another module it is a circle all the same.
        let child = ("p::c", "use crate::other;\npub fn g() {}");
        let other = ("other", "use crate::p::P;");
        let source = made_up(&[("", "mod p; mod other;"), parent, child, other]);
        assert_eq!(find(&source).len(), 1);
        // With the root it is one.
        let root = ("", "mod a;\nfn f() { a::g(); }\nfn h() {}");
        let source = made_up(&[root, ("a", "pub fn g() { crate::h(); }")]);
        assert_eq!(find(&source).len(), 1);
    }

    #[test]
    fn a_root_that_only_declares_and_hands_on_is_in_no_circle() {
        let root = "mod a; mod b;\npub use a::A;\npub use b::*;";
        let source = made_up(&[
            ("", root),
            ("a", "use crate::B;\npub struct A;"),
            ("b", "pub struct B;"),
        ]);
        assert_eq!(find(&source), [""; 0]);
    }

    #[test]
    fn each_circle_is_told_once_and_the_shortest_first() {
        let source = made_up(&[
            ("", "mod a; mod b; mod c; mod d;"),
            ("a", "use crate::b;"),
            ("b", "use crate::c; use crate::d;"),
            ("c", "use crate::a;"),
            ("d", "use crate::b;"),
        ]);
        let heads: Vec<String> = find(&source)
            .iter()
            .filter_map(|it| it.lines().next().map(str::to_owned))
            .collect();
        assert_eq!(heads, ["b → d → b", "a → b → c → a"]);
    }

    #[test]
    fn layers_in_one_direction_have_no_circle() {
        let source = made_up(&[
            ("", "mod a; mod b; pub mod c;\nfn main() { a::run(); }"),
            ("a", "use crate::{b, c::C};"),
            ("b", "use crate::c::C; use std::fmt;"),
            (
                "c",
                "#[cfg(test)]\nmod tests { use crate::a; }\npub struct C;",
            ),
        ]);
        assert_eq!(find(&source), [""; 0]);
    }
}
