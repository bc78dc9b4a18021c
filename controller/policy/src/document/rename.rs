//! Renames an object: the edit that gives it another name, wherever the document says the old one.

use wardline_proto::v1::{Policy, Rule};

use super::edit::{Edit, MISSING};
use crate::words::problem::Problem;

/// The edit that renames an object, written `KIND/OLD`, and every reference to it.
///
/// # Errors
///
/// The problems of the request: there is no such object, or one has the new name already.
pub fn rename(policy: &Policy, object: &str, new: &str) -> Result<Edit, Vec<Problem>> {
    let problem = |path: &str, message: String| {
        Err(vec![Problem {
            path: path.to_owned(),
            message,
        }])
    };
    let Some((kind, old)) = object.split_once('/') else {
        return problem("object", format!("{object:?} is no KIND/NAME"));
    };
    let has = |name: &str| match kind {
        "zone" => policy.zones.iter().any(|it| it.name == name),
        "port" => policy.ports.iter().any(|it| it.interface == name),
        "device" => policy.devices.iter().any(|it| it.name == name),
        "service" => policy.services.iter().any(|it| it.name == name),
        "rule" => policy.rules.iter().any(|it| it.name == name),
        _ => false,
    };
    if !["zone", "port", "device", "service", "rule"].contains(&kind) {
        let message = format!("{kind:?} is none of zone, port, device, service and rule");
        return problem("object", message);
    }
    if !has(old) {
        return problem(object, MISSING.to_owned());
    }
    if old == new {
        return problem("new_name", format!("is the name of {object} already"));
    }
    if has(new) {
        return problem("new_name", format!("there is a {kind} {new:?} already"));
    }
    let mut renamed = policy.clone();
    let names = Names { kind, old, new };
    for zone in &mut renamed.zones {
        names.own("zone", &mut zone.name);
    }
    for port in &mut renamed.ports {
        names.own("port", &mut port.interface);
        names.own("zone", &mut port.zone);
        for vlan in &mut port.vlans {
            names.own("zone", &mut vlan.zone);
        }
    }
    for device in &mut renamed.devices {
        names.own("device", &mut device.name);
        names.own("zone", &mut device.zone);
        names.own("port", &mut device.port);
    }
    for service in &mut renamed.services {
        names.own("service", &mut service.name);
    }
    for rule in &mut renamed.rules {
        names.rule(rule);
    }
    Ok(Edit {
        put: Some(Policy {
            version: policy.version,
            zones: differing(&policy.zones, renamed.zones),
            ports: differing(&policy.ports, renamed.ports),
            devices: differing(&policy.devices, renamed.devices),
            services: differing(&policy.services, renamed.services),
            rules: differing(&policy.rules, renamed.rules),
            // An address is a name of nothing else.
            resolvers: Vec::new(),
        }),
        delete: vec![object.to_owned()],
    })
}

/// A name, and what takes its place.
struct Names<'a> {
    kind: &'a str,
    old: &'a str,
    new: &'a str,
}

impl Names<'_> {
    /// Renames what is the name of an object of this kind.
    fn own(&self, kind: &str, name: &mut String) {
        if kind == self.kind && name == self.old {
            self.new.clone_into(name);
        }
    }

    fn rule(&self, rule: &mut Rule) {
        self.own("rule", &mut rule.name);
        for service in &mut rule.services {
            self.own("service", service);
        }
        let ends = rule.from.iter_mut().chain(&mut rule.to);
        for selector in ends.chain(&mut rule.answers_from) {
            let named = selector.strip_prefix(self.kind);
            if named.and_then(|it| it.strip_prefix(':')) == Some(self.old) {
                *selector = format!("{}:{}", self.kind, self.new);
            }
        }
    }
}

/// The objects that are not as they were.
fn differing<T: PartialEq>(was: &[T], is: Vec<T>) -> Vec<T> {
    let both = was.iter().zip(is);
    both.filter(|(was, is)| *was != is)
        .map(|(_, is)| is)
        .collect()
}

#[cfg(test)]
mod tests {
    use wardline_proto::document::parse;

    use super::*;
    use crate::document::edit::{change, used};

    const DOCUMENT: &str = r#"
version: 1
zones: [{name: pumps}, {name: ehr}]
ports: [{interface: lan1, zone: pumps, vlans: [{id: 5, zone: pumps}]}]
devices:
  - {name: pump, zone: pumps, macs: ["02:00:00:00:01:01"], port: lan1}
  - {name: pumps, zone: ehr, macs: ["02:00:00:00:01:02"]}
services: [{name: hl7, ports: [tcp/2575]}]
rules:
  - {name: a, from: ["zone:pumps"], to: ["device:pumps", "device:pump"], services: [hl7], action: allow}
  - {name: b, from: ["device:pump"], to: ["zone:ehr"], services: [tcp/1], action: allow, answers_from: ["device:pump"]}
"#;

    fn renamed(object: &str, new: &str) -> Policy {
        let (mut policy, problems) = parse(DOCUMENT);
        assert!(problems.is_empty(), "{problems:?}");
        let edit = rename(&policy, object, new).expect("a name");
        change(&mut policy, &edit).expect("an edit");
        assert!(used(&policy, &edit).is_empty(), "nobody says the old name");
        policy
    }

    #[test]
    fn every_reference_has_the_new_name_and_no_other_word_does() {
        let policy = renamed("device/pump", "pump-7");
        let rule = |policy: &Policy, name: &str| {
            let mut rules = policy.rules.iter();
            rules.find(|it| it.name == name).expect("a rule").clone()
        };
        assert_eq!(rule(&policy, "a").to, ["device:pumps", "device:pump-7"]);
        assert_eq!(rule(&policy, "b").from, ["device:pump-7"]);
        assert_eq!(rule(&policy, "b").answers_from, ["device:pump-7"]);
        let policy = renamed("zone/pumps", "infusion");
        assert_eq!(policy.ports[0].zone, "infusion");
        assert_eq!(policy.ports[0].vlans[0].zone, "infusion");
        assert_eq!(rule(&policy, "a").from, ["zone:infusion"]);
        assert_eq!(rule(&policy, "a").to[0], "device:pumps");
        let policy = renamed("port/lan1", "lan9");
        assert_eq!(policy.devices[0].port, "lan9");
        let policy = renamed("service/hl7", "hl7-v2");
        assert_eq!(rule(&policy, "a").services, ["hl7-v2"]);
        let policy = renamed("rule/a", "c");
        assert_eq!(policy.rules.len(), 2);
        assert_eq!(rule(&policy, "c").services, ["hl7"]);
    }

    #[test]
    fn a_name_that_is_taken_or_that_nobody_has_is_refused() {
        let (policy, _) = parse(DOCUMENT);
        for (object, new, line) in [
            ("device/gone", "x", "device/gone: is not there"),
            (
                "device/pump",
                "pumps",
                "new_name: there is a device \"pumps\" already",
            ),
            (
                "device/pump",
                "pump",
                "new_name: is the name of device/pump already",
            ),
            ("pump", "x", "object: \"pump\" is no KIND/NAME"),
            (
                "flow/1",
                "x",
                "object: \"flow\" is none of zone, port, device, service and rule",
            ),
        ] {
            let problems = rename(&policy, object, new).expect_err("refused");
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(lines, [line]);
        }
    }
}
