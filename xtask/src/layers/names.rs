//! What the sources of a layer may not name.

use super::{
    Rule,
    source::{Named, Place, ROOT, Source},
};

/// Every place that names what the rule forbids there.
pub(super) fn check(source: &Source, rule: &Rule) -> Vec<String> {
    let named = source.named();
    named.iter().filter_map(|it| complaint(it, rule)).collect()
}

fn complaint(named: &Named, rule: &Rule) -> Option<String> {
    let Place::Elsewhere(path) = &named.place else {
        return None;
    };
    let is_within = |path: &str, of: &str| {
        path.strip_prefix(of)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    rule.paths.iter().find(|it| is_within(path, it))?;
    let is_exempt = |(module, _): &(&str, &str)| is_within(&named.module, module);
    if rule.except.iter().any(is_exempt) {
        return None;
    }
    let module = match named.module.as_str() {
        "" => ROOT,
        name => name,
    };
    let allowed: Vec<&str> = rule.except.iter().map(|(module, _)| *module).collect();
    let cure = match allowed.as_slice() {
        [] => "hand it in as an argument, or do it in a layer above".to_owned(),
        allowed => format!("only {} may: do it there", allowed.join(", ")),
    };
    Some(format!(
        "{}: {module} names {path} ({}:{}), but {}; {cure}",
        rule.layer,
        named.file.display(),
        named.line,
        rule.why,
    ))
}

#[cfg(test)]
mod tests {
    use super::{super::source::made_up, *};

    const RULE: Rule = Rule {
        layer: "l",
        paths: &["std::fs", "jiff::Timestamp::now"],
        except: &[("store", "it keeps")],
        why: "it is pure",
    };

    #[test]
    fn a_forbidden_path_is_told_with_its_place_and_the_cure() {
        let source = made_up(&[("", "mod a;"), ("a", "\nuse std::{fmt, fs::File};")]);
        assert_eq!(
            check(&source, &RULE),
            ["l: a names std::fs::File (src/a.rs:2), but it is pure; only store may: do it there"]
        );
    }

    #[test]
    fn a_call_is_found_through_its_import() {
        let source = made_up(&[("", "use jiff::Timestamp;\nfn f() { Timestamp::now(); }")]);
        let found = check(&source, &RULE);
        assert!(
            found[0].starts_with("l: (root) names jiff::Timestamp::now (src/.rs:2)"),
            "{found:?}"
        );
        let source = made_up(&[("", "fn f(now: jiff::Timestamp) {} use std::fs_like;")]);
        assert_eq!(check(&source, &RULE), [""; 0]);
    }

    #[test]
    fn who_may_may_below_as_well() {
        let source = made_up(&[
            ("", "mod store; mod stored;"),
            ("store", "mod file;"),
            ("store::file", "use std::fs;"),
            ("stored", "use std::fs;"),
        ]);
        assert_eq!(check(&source, &RULE).len(), 1);
    }
}
