//! What the configuration may contain, and the errors for everything else.

use clap::Parser as _;

use std::time::Duration;

use super::{identity::Kind, *};

#[test]
fn an_empty_file_means_the_defaults() {
    let config = parse("").expect("the defaults");
    assert!(!config.router.is_empty());
    assert_eq!(config.state_dir, Path::new("/var/lib/wardline"));
    assert_eq!(config.pin_dir, Path::new("/sys/fs/bpf/wardline"));
    assert_eq!(config.api.socket, Path::new("/run/wardline/api.sock"));
    assert_eq!(
        (config.api.listen, &config.api.tls, config.api.roles.len()),
        (None, &None, 0)
    );
    assert_eq!(config.metrics.listen, "127.0.0.1:9643".parse().ok());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.timeouts, Timeouts::default());
}

const WHOLE: &str = r#"
router    = "edge-ward-3"
state_dir = "/tmp/state"
pin_dir   = "/sys/fs/bpf/other"
failsafe  = [{ from = ["10.0.9.5", "fd00::/64"], services = ["tcp/22"] }]
[api]
socket = "/tmp/api.sock"
listen = "0.0.0.0:7443"
tls    = { cert = "/a", key = "/b", client_ca = "/c" }
roles  = [{ match = "uri:spiffe://clinic/netops/*", role = "operator" }, { match = "cn:root", role = "admin" }]
[metrics]
listen = ""
[limits]
devices = 10
flows = 64
flows_per_device = 1
control = 20
control_in_quarantine = 2
learned_per_device = 2
learned_per_port = 3
names = 4
addresses_per_name = 32
rules = 20
[timeouts]
tcp_unanswered = 1
tcp_established = 2
tcp_closing = 3
udp = 4
udp_answered = 5
icmp = 6
[log]
level = "warn"
format = "json"
[audit]
segment_bytes = 4096
keep_segments = 2
[history]
keep_revisions = 7
keep_days = 0
keep_bytes = 65536
[mud]
trust = "/etc/mud.pem"
router_is = ["urn:ietf:params:mud:dns"]
[journal]
size = "9000KiB"
days = 3
"#;

#[test]
fn reads_every_key() {
    let config = parse(WHOLE).expect("a configuration");
    assert_eq!(config.router, "edge-ward-3");
    assert_eq!(config.api.listen, "0.0.0.0:7443".parse().ok());
    assert_eq!(
        config.api.tls.as_ref().map(|tls| tls.key.as_path()),
        Some(Path::new("/b"))
    );
    assert_eq!(config.metrics.listen, None);
    assert_eq!(config.failsafe[0].from.len(), 2);
    let limits = Limits {
        devices: 10,
        flows: 64,
        flows_per_device: 1,
        control: 20,
        control_in_quarantine: 2,
        learned_per_device: 2,
        learned_per_port: 3,
        names: 4,
        addresses_per_name: 32,
        rules: 20,
    };
    assert_eq!(config.limits, limits);
    assert_eq!(config.timeouts.udp_answered, Duration::from_secs(5));
    let (level, format) = (tracing::Level::WARN, LogFormat::Json);
    assert_eq!(config.log, Log { level, format });
    let (bytes, count) = (4096, 2);
    assert_eq!(config.audit, Segments { bytes, count });
    let kept = Kept {
        revisions: 7,
        days: 0,
        bytes: 65_536,
    };
    assert_eq!(config.history, kept);
    let mud = Mud {
        trust: Some(PathBuf::from("/etc/mud.pem")),
        router_is: vec!["urn:ietf:params:mud:dns".to_owned()],
    };
    assert_eq!(config.mud, mud);
    let (bytes, days) = (9000 << 10, 3);
    assert_eq!(config.journal, Bounds { bytes, days });
}

#[test]
fn says_what_it_read_in_its_own_format() {
    for text in ["", WHOLE] {
        let config = parse(text).expect("a configuration");
        assert_eq!(parse(&config.to_string()).expect("the same"), config);
    }
}

#[test]
fn refuses_with_file_line_and_key() {
    for (text, expected) in [
        (
            "rooter = 'x'",
            "f.toml:1: rooter: unknown field `rooter`, expected one of",
        ),
        ("router = ''", "f.toml:1: router: not a name"),
        (
            "router = 'x'\n[journal]\nsize = '8MB'",
            "f.toml:3: journal.size: not a size from 8MiB to 1024GiB",
        ),
        (
            "router = 'x'\njournal.size = '1MiB'",
            "f.toml:2: journal.size: not a size",
        ),
        (
            "router = 'x'\nstate_dir = 'a'",
            "f.toml:2: state_dir: not an absolute path",
        ),
        (
            "\n[api]\n\nlisten = '0.0.0.0:1'",
            "f.toml:4: api.listen: needs api.tls",
        ),
        (
            "[api]\nlissen = ''",
            "f.toml:2: api.lissen: unknown field `lissen`, expected one of",
        ),
        (
            "[api]\ntls = { cert = '/a' }",
            "f.toml:2: api.tls: missing field `key`",
        ),
        (
            "[api]\nsocket = 'x'",
            "f.toml:2: api.socket: not an absolute path",
        ),
        (
            "[api]\nroles = [{ match = '', role = 'viewer' }]",
            "f.toml:2: api.roles: empty",
        ),
        (
            "[api]\nroles = [{ match = 'ip:x', role = 'viewer' }]",
            "f.toml:2: api.roles: \"x\" is no address",
        ),
        (
            "[api]\nroles = [{ match = 'x', role = 'root' }]",
            "f.toml:2: api.roles: unknown variant `root`",
        ),
        (
            "failsafe = [{ from = ['x'], services = ['tcp/22'] }]",
            "f.toml:1: failsafe: \"x\" is no address or prefix",
        ),
        (
            "[[failsafe]]\nfrom = ['10.0.0.1']",
            "f.toml:1: failsafe: missing field `services`",
        ),
        (
            "[metrics]\nlisten = 'here'",
            "f.toml:2: metrics.listen: \"here\" is not an address",
        ),
        (
            "[limits]\nflows = 63",
            "f.toml:2: limits.flows: 63 is not from 64 to 16777216",
        ),
        (
            "[limits]\nflows = 16777217",
            "f.toml:2: limits.flows: 16777217 is not from",
        ),
        (
            "[limits]\nlearned_per_device = 65",
            "f.toml:2: limits.learned_per_device: 65 is not from 1 to 64",
        ),
        (
            "[limits]\nflows_per_device = 0",
            "f.toml:2: limits.flows_per_device: 0 is not from 1",
        ),
        (
            "[limits]\ncontrol = 9",
            "f.toml:2: limits.control: 9 is not from 10",
        ),
        (
            "[limits]\ncontrol_in_quarantine = 0",
            "f.toml:2: limits.control_in_quarantine: 0 is not from 1",
        ),
        (
            "[limits]\ndevices = -1",
            "f.toml:2: limits.devices: -1 is not from 1",
        ),
        (
            "[limits]\ndevices = 'x'",
            "f.toml:2: limits.devices: invalid type: string",
        ),
        (
            "[limits]\nzones = 1",
            "f.toml:2: limits.zones: unknown variant `zones`",
        ),
        (
            "[timeouts]\nudp = 0",
            "f.toml:2: timeouts.udp: 0 is not from 1 to 604800",
        ),
        (
            "[log]\nlevel = 'loud'",
            "f.toml:2: log.level: not error, warn, info, debug or trace",
        ),
        (
            "[log]\nformat = 'xml'",
            "f.toml:2: log.format: unknown variant `xml`",
        ),
        (
            "[audit]\nkeep_segments = 1",
            "f.toml:2: audit.keep_segments: 1 is not from 2 to 1000",
        ),
        (
            "[mud]\ntrust = \"mud.pem\"",
            "f.toml:2: mud.trust: not an absolute path",
        ),
        (
            "[mud]\nrouter_is = [\"dns\"]",
            "f.toml:2: mud.router_is: not a URI",
        ),
        (
            "[history]\nkeep_bytes = 1",
            "f.toml:2: history.keep_bytes: 1 is not from 65536",
        ),
        (
            "router = 'a'\nrouter = 'b'",
            "f.toml:2: router: duplicate key",
        ),
        ("# é\nrouter", "f.toml:2: "),
    ] {
        let error = parse(text).expect_err("must be refused").to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error_only_when_named() {
    let flags = Flags::try_parse_from(["wardlined", "--config", "/nowhere/x.toml"]);
    let error = Config::load(&flags.expect("flags"))
        .expect_err("no such file")
        .to_string();
    assert!(
        error.starts_with("/nowhere/x.toml: No such file"),
        "{error}"
    );
    assert!(Flags::try_parse_from(["wardlined", "--check", "--detach"]).is_err());
    assert!(Flags::try_parse_from(["wardlined", "--log", "loud"]).is_err());
    let flags = Flags::try_parse_from(["wardlined"]).expect("no flags");
    assert_eq!(
        (flags.config, flags.log, flags.log_format),
        (None, None, None)
    );
}

#[test]
fn tells_which_keys_are_others() {
    let config = |text| parse(text).expect("a configuration");
    let whole = config(WHOLE);
    assert_eq!(whole.differences(&whole), [""; 0]);
    let other = WHOLE
        .replace("flows = 64", "flows = 65")
        .replace("\"warn\"", "\"info\"");
    assert_eq!(
        whole.differences(&config(&other)),
        ["limits.flows", "log.level"]
    );
    let other = WHOLE
        .replace("10.0.9.5", "10.0.9.6")
        .replace("\"/a\"", "\"/d\"");
    assert_eq!(whole.differences(&config(&other)), ["api.tls", "failsafe"]);
}

#[test]
fn a_client_has_the_highest_role_of_its_names() {
    let api = parse(WHOLE).expect("a configuration").api;
    let named = |kind, name: &str| Identity {
        kind,
        name: name.to_owned(),
    };
    let ada = named(Kind::Uri, "spiffe://clinic/netops/ada");
    let root = named(Kind::Cn, "root");
    let names = [ada.clone(), root.clone()];
    assert_eq!(api.role(&names[..1]), Some((Role::Operator, &ada)));
    assert_eq!(api.role(&names), Some((Role::Admin, &root)));
    let others = [
        named(Kind::Uri, "spiffe://clinic/ward/ada"),
        named(Kind::Cn, "Root"),
        named(Kind::Dns, "root"),
    ];
    assert_eq!(api.role(&others), None);
    assert_eq!(api.role(&[]), None);
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("f.toml"))
}
