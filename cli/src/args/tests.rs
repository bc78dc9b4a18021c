//! What the command line accepts and refuses.

use super::*;

fn parsed(line: &str) -> Result<Args, clap::Error> {
    let words = std::iter::once("wardctl").chain(line.split_whitespace());
    Args::from_matches(&Args::command().try_get_matches_from(words)?)
}

fn accepted(line: &str) -> Args {
    parsed(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn the_definition_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn accepts_what_the_contract_lists() {
    for line in [
        "status",
        "interfaces",
        "plan -f policy.yaml",
        "apply -f - --confirm-within 60s --reason why --base 7",
        "put -f fragment.yaml --base 0",
        "delete zone/pumps port/lan* device/a service/b rule/c --reason gone",
        "confirm",
        "confirm 7",
        "rollback",
        "rollback 7 --reason oops",
        "history --limit 5",
        "get",
        "get 3",
        "diff 3",
        "explain --from device:a --to 10.0.0.1 tcp/443 --port lan1 --source-port 5000",
        "explain hl7 --from router --to device:ehr",
        "why camera-1",
        "why camera-1 nvr --since 7d --limit 3",
        "quarantine camera-1 --reason odd",
        "release camera-1",
        "quarantine --port lan3 --reason odd",
        "quarantine --reason odd --port lan3",
        "release --port lan3 --reason mended",
        "grant --from any --to device:a --service ssh --for 1h30m --reason fix --name n",
        "revoke n",
        "devices",
        "flows",
        "counters",
        "events --since 10m --follow",
        "events --since 2026-11-30T08:00:00Z --until 1h --device a --device b --zone z --limit 5",
        "events --reason no_rule --rule r --service hl7 --peer 10.0.0.1 --interface lan1 --verdict drop",
        "audit",
        "audit --limit 5",
        "audit --verify --file exported.jsonl",
        "audit --verify --file a.jsonl --file b.jsonl",
        "backup -f -",
        "backup --file edge.wlb --overwrite",
        "backup --check edge.wlb",
        "context list",
        "context use ward-3",
        "context set ward-3 --server https://ward-3:7443 --ca a --cert c --key k",
        "context set ward-3 --cert c",
        "context delete ward-3",
        "status --context ward-3",
        "status --context ward-3 --cert other",
        "completions bash",
        "setup tls",
        "setup tls --directory d --name ward-3 --name 10.0.0.1 --person ada --role admin",
        "setup tls --days 30 --owner root --overwrite",
        "man d",
    ] {
        accepted(line);
    }
}

#[test]
fn refuses_as_usage() {
    for line in [
        "",
        "frobnicate",
        "apply",
        "apply -f x --confirm-within 60",
        "apply -f x --confirm-within 0s",
        "delete",
        "delete pumps",
        "delete flow/1",
        "delete zone/",
        "rollback -1",
        "get 0",
        "explain --from a --to b",
        "quarantine camera-1",
        "quarantine --reason odd",
        "quarantine --port lan3",
        "quarantine camera-1 --port lan3 --reason odd",
        "release",
        "release camera-1 --port lan3",
        "grant --from a --to b --service c --reason d",
        "grant --from a --to b --service c --reason d --for soon",
        "status -o xml",
        "events --until 1h --follow",
        "events --since yesterday",
        "events --reason odd",
        "events --verdict lost",
        "events --limit 0",
        "status --server http://router:7443",
        "status --server /run/wardline/api.sock",
        "status --server https://router:7443",
        "status --server https://router:7443 --cert c --key k",
        "status --server unix:///a.sock --context b",
        "context",
        "context use",
        "audit --head 5",
        "audit --verify --head 5",
        "audit --verify --limit 5",
        "backup",
        "backup --overwrite",
        "backup --overwrite --check a",
        "backup -f a --check a",
        "setup",
        "setup tls --role root",
        "setup tls --days 0",
        "setup tls --person a/b",
        "setup tls --person ca",
        "man",
    ] {
        let error = parsed(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn global_arguments_stand_before_or_after_the_command() {
    for line in ["-o json --timeout 5s status", "status --timeout 5s -o json"] {
        let args = accepted(line);
        assert_eq!(args.output, Format::Json);
        assert_eq!(args.timeout, Some(Duration::from_secs(5)));
    }
}

#[test]
fn a_server_is_a_socket_or_tls() {
    let server = |text: &str| text.parse::<Server>();
    assert_eq!(
        server("unix:///run/a.sock"),
        Ok(Server::Unix("/run/a.sock".into()))
    );
    assert_eq!(server("unix:a.sock"), Ok(Server::Unix("a.sock".into())));
    assert!(matches!(
        server("https://[fd00::1]:7443"),
        Ok(Server::Tls(_))
    ));
    accepted("status --server https://router:7443 --ca a --cert c --key k");
}

#[test]
fn documents_get_more_time() {
    let timeout = |line| accepted(line).command.default_timeout().as_secs();
    assert_eq!((timeout("apply -f x"), timeout("status")), (120, 30));
}
