//! Files that are wrong, or that want to be read in two ways.

use serde_json::{Value, json};

use super::*;

fn refusal(file: &Value) -> String {
    imported_as(file, true).unwrap_err().to_string()
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut file = file(&[], &[]);
    change(&mut file);
    file
}

#[test]
fn a_file_that_is_none_is_refused_whole() {
    const ACLS: &str = "ietf-access-control-list:acls";
    for (file, says) in [
        (json!({}), "ietf-mud:mud: missing"),
        (
            with(|it| it["ietf-mud:mud"]["mud-version"] = json!(2)),
            "mud-version: 1 is expected",
        ),
        (
            with(|it| it["ietf-mud:mud"]["mud-url"] = json!("http://a.example/")),
            "https",
        ),
        (
            with(|it| it[ACLS]["acl"][0]["type"] = json!("mixed-eth-ipv4-acl-type")),
            "acl[0].type",
        ),
        (
            with(|it| it[ACLS]["acl"][1]["name"] = json!("from")),
            "given twice",
        ),
        (
            with(|it| it[ACLS]["acl"][1]["name"] = json!("other")),
            "there is no list \"to\"",
        ),
        (
            file(
                &[ace(
                    "x",
                    json!({"ipv4": {"ietf-acldns:src-dnsname": "a.example"}}),
                )],
                &[],
            ),
            "would name the device itself",
        ),
        (
            file(
                &[],
                &[ace(
                    "x",
                    json!({"ipv6": {"ietf-acldns:dst-dnsname": "a.example"}}),
                )],
            ),
            "would name the device itself",
        ),
        (
            file(&vec![ace("x", json!({})); 2001], &[]),
            "more than 2000 entries",
        ),
    ] {
        let told = refusal(&file);
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn a_condition_that_is_not_understood_makes_no_rule() {
    let local = json!({"local-networks": [null]});
    for matches in [
        json!({"ietf-mud:mud": {"local-networks": [null], "x": 1}}),
        json!({"ietf-mud:mud": local, "x:y": {}}),
        json!({"ietf-mud:mud": local, "ipv4": {"dscp": 7}}),
        json!({"ietf-mud:mud": local, "ipv6": {"protocol": 6}}),
        json!({"ietf-mud:mud": local, "tcp": {"flags": "syn"}}),
        json!({"ietf-mud:mud": local, "udp": {"ietf-mud:direction-initiated": "from-device"}}),
        json!({"ietf-mud:mud": local, "tcp": {}, "udp": {}}),
        json!({"ietf-mud:mud": local, "ipv4": {"protocol": 17}, "tcp": {}}),
        json!({"ietf-mud:mud": local, "tcp": {"destination-port": {"port": 65536}}}),
        json!({"ietf-mud:mud": local, "tcp": {"destination-port": {"port": "80"}}}),
        json!({"ietf-mud:mud": local, "tcp": {"destination-port": {"port": -1}}}),
        json!({"ietf-mud:mud": local, "tcp": {"destination-port": {"port": 80.5}}}),
        json!({"ietf-mud:mud": local, "tcp": {"destination-port": {"lower-port": 9, "upper-port": 7}}}),
        json!({"ietf-mud:mud": local, "tcp": {"destination-port": {"port": 1, "upper-port": 7}}}),
        json!({"ietf-mud:mud": local, "tcp": {"destination-port": {}}}),
        json!({"ietf-mud:mud": local, "tcp": {"destination-port": {"operator": "any", "port": 1}}}),
        json!({"ietf-mud:mud": local, "eth": {"ethertype": "0x0006"}}),
        json!({"ietf-mud:mud": local, "eth": {"destination-mac-address": "ff:ff:ff:ff:ff:ff"}}),
        json!({"ietf-mud:mud": {"local-networks": "yes"}}),
        json!({"ietf-mud:mud": {"local-networks": [null], "manufacturer": "other.example"}}),
        json!({"ietf-mud:mud": local, "ipv4": {"source-ipv4-network": "10.1.0.7/32"}}),
        json!({"ietf-mud:mud": {"manufacturer": "\u{43e}ther.example"}}),
        json!({"ipv4": {"ietf-acldns:dst-dnsname": "*.example"}}),
        json!({"ipv4": {"ietf-acldns:dst-dnsname": "localhost"}}),
        json!({"ipv4": {"ietf-acldns:dst-dnsname": "a.example/.."}}),
        json!([]),
    ] {
        let told = imported(&[ace("x", matches.clone())], &[]);
        let (outcome, why) = became(&told, "x");
        assert!(
            outcome == Outcome::Dropped && !why.is_empty(),
            "{matches}: {why}"
        );
    }
    let mut odd = ace("x", json!({"ietf-mud:mud": local}));
    odd["actions"]["redirect"] = json!("elsewhere");
    assert_eq!(became(&imported(&[odd], &[]), "x").0, Outcome::Dropped);
}

#[test]
fn what_a_file_is_called_harms_nobody() {
    let name = "\u{1b}[2J\u{202e}".to_owned() + &"x".repeat(5000);
    let local = tcp(json!({"local-networks": [null]}), 80);
    let told = imported(
        &[
            ace(&name, local.clone()),
            ace("web", local.clone()),
            ace("web", tcp(json!({"local-networks": [null]}), 81)),
        ],
        &[],
    );
    for rule in &told.put.rules {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(
            rule.name.len() <= 63 && rule.name.chars().all(fits),
            "{}",
            rule.name
        );
        assert!(rule.description.len() < 1000 && !rule.description.contains('\u{1b}'));
    }
    assert!(told.aces[0].name.chars().count() <= 100);
    // Two entries with one name have two rules, two that say the same have one.
    assert_eq!(told.aces[0].rules, told.aces[1].rules);
    assert_ne!(told.aces[1].rules, told.aces[2].rules);
}

#[test]
fn an_old_name_of_the_lists_is_read_and_told() {
    let mut old = file(&[ace("x", tcp(json!({"local-networks": [null]}), 80))], &[]);
    let fields = old.as_object_mut().unwrap();
    let lists = fields.remove("ietf-access-control-list:acls").unwrap();
    fields.insert(
        "ietf-access-control-list:access-lists".to_owned(),
        lists.clone(),
    );
    let told = imported_as(&old, true).unwrap();
    assert_eq!(became(&told, "x").0, Outcome::Imported);
    assert!(told.notices.iter().any(|it| it.contains("name of a draft")));
    old["ietf-access-control-list:acls"] = lists;
    assert!(refusal(&old).contains("both there"));
}
