//! What a changed document opens and closes, in words.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use wardline_proto::document;

use super::*;
use crate::{limits::Limits, words::service::service_words};

const WARD: &str = "version: 1
zones:
  - {name: pumps, subnets: [10.1.0.0/16]}
  - {name: cameras, subnets: [10.2.0.0/16]}
  - {name: void}
devices:
  - {name: pump-1, zone: pumps, addresses: [10.1.0.1]}
  - {name: pump-2, zone: pumps, addresses: [10.1.0.2]}
  - {name: server, zone: cameras, addresses: [10.2.0.1]}
";

fn intent(more: &str) -> Intent {
    let text = if more.starts_with("version") {
        more.to_owned()
    } else {
        format!("{WARD}rules:\n{more}")
    };
    let (policy, problems) = document::parse(&text);
    assert!(problems.is_empty(), "{problems:?}");
    Intent::from_accepted(&policy, &Limits::default(), Timestamp::UNIX_EPOCH).unwrap()
}

#[test]
fn a_label_is_an_end_and_its_devices_are_inside_it() {
    let ward = |labels: &str, rule: &str| {
        format!(
            "version: 1
zones:
  - {{name: pumps, subnets: [10.1.0.0/16]}}
  - {{name: cameras, subnets: [10.2.0.0/16], labels: {{site: north}}}}
devices:
  - {{name: pump-1, zone: pumps, addresses: [10.1.0.1], labels: {{ward: \"3\"}}}}
  - {{name: pump-2, zone: pumps, addresses: [10.1.0.2], labels: {{{labels}}}}}
  - {{name: server, zone: cameras, addresses: [10.2.0.1]}}
rules:
{rule}"
        )
    };
    let allow = rule(
        "a",
        "\"label:ward=3\"",
        "\"label:site=north\"",
        "tcp/80",
        "allow",
    );
    let (plain, both) = (ward("", &allow), ward("ward: \"3\"", &allow));
    assert_eq!(
        told(&ward("", "  []"), &plain),
        ["+ label:ward=3 > label:site=north tcp/80 by a"]
    );
    assert_eq!(
        told(&plain, &both),
        ["+ device:pump-2 > label:site=north tcp/80 by a"]
    );
    assert_eq!(
        told(&both, &plain),
        ["- device:pump-2 > label:site=north tcp/80 by a"]
    );
    // Who is meant by another label than before, and all of them still, has lost nothing.
    let other = rule(
        "a",
        "\"label:kind=p\"",
        "\"label:site=north\"",
        "tcp/80",
        "allow",
    );
    let kinds = |rule: &str| {
        let ward = ward("kind: p", rule);
        ward.replace("{ward: \"3\"}", "{ward: \"3\", kind: p}")
    };
    assert_eq!(
        told(&kinds(&allow), &kinds(&other)),
        ["+ label:kind=p > label:site=north tcp/80 by a"]
    );
    assert_eq!(
        told(&kinds(&other), &kinds(&allow)),
        ["- label:kind=p > label:site=north tcp/80 by a"]
    );
    // What is denied to one of them is told as an exception, and a wider rule makes it idle.
    let deny = rule("d", "device:pump-1", "any", "tcp/1-99", "deny");
    assert_eq!(
        told(&ward("", &deny), &ward("", &(deny.clone() + &allow))),
        ["+ label:ward=3 > label:site=north tcp/80 by a but d"]
    );
    let wide = rule("w", "zone:pumps", "zone:cameras", "tcp/1-99", "allow");
    let idle = idle(
        &intent(&ward("", &(allow.clone() + &wide))),
        Timestamp::now(),
        &|| true,
    )
    .unwrap()
    .into_iter()
    .map(|it| (it.rule.to_owned(), it.covered_by.join(",")))
    .collect::<Vec<_>>();
    assert_eq!(idle, [("a".to_owned(), "w".to_owned())]);
}

fn rule(name: &str, from: &str, to: &str, services: &str, action: &str) -> String {
    format!(
        "  - {{name: {name}, from: [{from}], to: [{to}], services: [{services}], action: {action}}}\n"
    )
}

fn told(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (intent(old), intent(new));
    let line = |it: &Reach<'_>| {
        let sign = if it.opens { '+' } else { '-' };
        let alike = if it.alike == 0 {
            String::new()
        } else {
            format!(" x{}", it.alike)
        };
        let except = if it.except.is_empty() {
            String::new()
        } else {
            format!(" but {}", it.except.join(","))
        };
        let only = if it.answers { " in answer" } else { "" };
        format!(
            "{sign} {} > {} {}{only} by {}{except}{alike}",
            it.from,
            it.to,
            service_words(&it.services).join(","),
            it.rules.join(","),
        )
    };
    changes(&old, &new, Timestamp::now(), &|| true)
        .unwrap()
        .iter()
        .map(line)
        .collect()
}

#[test]
fn tells_what_a_changed_rule_opens_and_closes() {
    let old = rule("a", "zone:pumps", "zone:cameras", "tcp/80-90", "allow")
        + &rule("c", "any", "router", "tcp/22", "allow");
    let new = rule("a", "zone:pumps", "zone:cameras", "tcp/85-100", "allow")
        + &rule("b", "device:pump-1", "zone:cameras", "tcp/90", "allow");
    assert_eq!(
        told(&old, &new),
        [
            "- any > router tcp/22 by c",
            "- zone:pumps > zone:cameras tcp/80-84 by a",
            "+ zone:pumps > zone:cameras tcp/91-100 by a",
        ]
    );
    assert_eq!(told(&new, &new), [""; 0]);
}

#[test]
fn a_deny_counts_and_one_for_a_part_is_an_exception() {
    let allow = rule("a", "zone:pumps", "zone:cameras", "tcp/80", "allow");
    let denied = allow.clone() + &rule("d", "any", "zone:cameras", "tcp/*", "deny");
    assert_eq!(
        told(&allow, &denied),
        ["- zone:pumps > zone:cameras tcp/80 by a"]
    );
    let part = rule("d", "device:pump-2", "device:server", "tcp/80", "deny");
    let both = allow.clone() + &part;
    assert_eq!(
        told(&part, &both),
        ["+ zone:pumps > zone:cameras tcp/80 by a but d"]
    );
    assert_eq!(
        told(&allow, &both),
        ["- device:pump-2 > device:server tcp/80 by a"]
    );
    // Reachability that another rule still allows is no change.
    let wide = allow.clone() + &rule("w", "any", "any", "", "allow");
    let wide_only = rule("w", "any", "any", "", "allow");
    assert_eq!(told(&wide, &wide_only), [""; 0]);
}

#[test]
fn devices_that_come_alike_are_told_once() {
    let rules = rule("a", "zone:pumps", "device:server", "tcp/80", "allow")
        + &rule("b", "device:pump-9", "router", "udp/53", "allow");
    let mut new = WARD.to_owned();
    for n in 7..=9 {
        new += &format!("  - {{name: pump-{n}, zone: pumps, addresses: [10.1.0.{n}]}}\n");
    }
    let new = new + "rules:\n" + &rules;
    let old = rule("a", "zone:pumps", "device:server", "tcp/80", "allow");
    assert_eq!(
        told(&old, &new),
        [
            "+ device:pump-9 > router udp/53 by b",
            "+ device:pump-7 > device:server tcp/80 by a x2",
            "+ device:pump-9 > device:server tcp/80 by a",
        ]
    );
    let moved = (WARD.to_owned() + "rules:\n" + &old).replace(
        "pump-2, zone: pumps, addresses: [10.1.0.2]",
        "pump-2, zone: cameras, addresses: [10.2.0.2]",
    );
    assert_eq!(
        told(&old, &moved),
        ["- device:pump-2 > device:server tcp/80 by a"]
    );
}

#[test]
fn says_which_rules_do_nothing_and_which_cover_them() {
    let rules = rule("a-wide", "any", "zone:cameras", "tcp/*", "allow")
        + &rule(
            "narrow",
            "device:pump-1",
            "device:server",
            "tcp/80",
            "allow",
        )
        + &rule("other", "device:pump-1", "device:server", "udp/80", "allow")
        + &rule("dead", "cidr:10.1.2.0/24", "router", "tcp/22", "allow")
        + &rule("no", "zone:pumps", "router", "", "deny")
        + &rule("twin", "any", "zone:cameras", "tcp/*", "allow")
        + &rule("nobody", "zone:void", "any", "", "allow");
    let intent = intent(&rules);
    let found: Vec<_> = idle(&intent, Timestamp::now(), &|| true)
        .unwrap()
        .iter()
        .map(|it| format!("{} {} {}", it.rule, it.matches, it.covered_by.join(",")))
        .collect();
    assert_eq!(
        found,
        [
            "dead true no",
            "narrow true a-wide",
            "nobody false ",
            "twin true a-wide"
        ]
    );
    assert_eq!(empty_zones(&intent), ["void"]);
}

#[test]
fn the_internet_has_what_is_public_and_in_no_zone() {
    let out = rule("a-out", "zone:pumps", "internet", "tcp/80", "allow");
    let wide = rule("a-out", "zone:pumps", "any", "tcp/80", "allow");
    assert_eq!(
        told(&out, &wide),
        ["+ zone:pumps > any tcp/80 by a-out"],
        "the wider pair tells it"
    );
    // A part of the internet is covered by it; what is private, or a zone's or a device's, is not.
    let to = |net: &str| rule("part", "zone:pumps", net, "tcp/80", "allow");
    let covered = |more: &str, net: &str| {
        let intent = intent(&(more.to_owned() + &out + &to(net)));
        let idle = idle(&intent, Timestamp::now(), &|| true).unwrap();
        idle.iter().any(|it| it.rule == "part")
    };
    let listed = |address: &str| {
        let zones = "version: 1\nzones:\n  - {name: pumps, subnets: [10.1.0.0/16, 9.9.9.0/24]}\n";
        format!("{zones}devices:\n  - {{name: d, zone: pumps, addresses: [{address}]}}\nrules:\n")
    };
    assert!(covered("", "cidr:9.9.0.0/16"));
    assert!(!covered("", "cidr:10.9.0.0/16"));
    assert!(!covered("", "cidr:192.0.0.0/16"));
    assert!(!covered(&listed("10.1.0.1"), "cidr:9.9.0.0/16"));
    assert!(!covered(&listed("10.1.0.1"), "cidr:9.9.9.9/32"));
    assert!(covered(&listed("10.1.0.1"), "cidr:8.0.0.0/8"));
    assert!(!covered(&listed("8.8.8.8"), "cidr:8.0.0.0/8"));
    assert!(covered(&listed("8.8.8.8"), "cidr:64:ff9b::808:900/120"));
    assert!(!covered(&listed("8.8.8.8"), "cidr:64:ff9b::808:800/120"));
    // A deny that concerns a part of it is an exception; one of private addresses is not.
    let deny = |net: &str| rule("no", "zone:pumps", net, "tcp/80", "deny");
    let opens = |deny: &str| told(deny, &(out.clone() + deny));
    assert_eq!(
        opens(&deny("cidr:9.0.0.0/8")),
        ["+ zone:pumps > internet tcp/80 by a-out but no"]
    );
    assert_eq!(
        opens(&deny("cidr:10.0.0.0/8")),
        ["+ zone:pumps > internet tcp/80 by a-out"]
    );
}

#[test]
fn services_are_told_as_documents_write_them() {
    let words = |text: &str| {
        let service: Service = text.parse().unwrap();
        assert_eq!(service_words(&[service]), [text]);
    };
    for text in [
        "tcp/443",
        "udp/5000-5100",
        "tcp/*",
        "icmp/8",
        "icmp/3/4",
        "icmpv6/*",
        "proto/47",
    ] {
        words(text);
    }
    assert_eq!(service_words(&[Service::ALL]), ["every service"]);
}

#[test]
fn who_may_answer_is_told_like_who_may_open() {
    let search = |answers: &str| {
        format!(
            "  - {{name: search, from: [zone:pumps, router], to: [\"cidr:239.3.0.0/16\"], \
             services: [udp/1900], answers_from: [{answers}], action: allow}}\n"
        )
    };
    assert_eq!(
        told(
            &search("device:server, \"cidr:192.0.2.0/24\""),
            &search("device:server, zone:cameras")
        ),
        [
            "- cidr:192.0.2.0/24 > router udp/* in answer by search",
            "- cidr:192.0.2.0/24 > zone:pumps udp/* in answer by search",
            "+ zone:cameras > router udp/* in answer by search",
            "+ zone:cameras > zone:pumps udp/* in answer by search",
        ]
    );
    let none = rule(
        "search",
        "zone:pumps, router",
        "\"cidr:239.3.0.0/16\"",
        "udp/1900",
        "allow",
    );
    assert_eq!(
        told(&search("device:server"), &none),
        [
            "- device:server > router udp/* in answer by search",
            "- device:server > zone:pumps udp/* in answer by search",
        ]
    );
}
