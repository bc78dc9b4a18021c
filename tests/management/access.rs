//! Who may ask the daemon what: roles, certificates, clients that mean harm, and the audit of it
//! all.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use prost::Message as _;
use serde_json::Value;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tonic::{
    Code, Request, Status,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tonic_prost::ProstCodec;
use wardline_proto::v1::{self, segmentation_client::SegmentationClient};
use wardline_tests::{Ctl, Daemon, End, Host, Lab, Settings, eventually, ward::program};

use super::authority::{Authority, Kind, Signed, believing, replace};

const PORT: u16 = 7443;
const PATIENCE: Duration = Duration::from_secs(15);
const POLICY: &str = "version: 1\nzones: [{name: a, subnets: [10.1.0.0/16]}]\n";
const ROLES: &str = r#"roles = [
  { match = "vera", role = "viewer" },
  { match = "spiffe://clinic/netops/*", role = "operator" },
  { match = "*@clinic", role = "admin" },
]"#;

/// A daemon that serves TCP, and who signs for its clients.
struct Ward {
    daemon: Daemon,
    ctl: Ctl,
    authority: Authority,
    files: PathBuf,
    lab: Lab,
}

impl Ward {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name).unwrap();
        let authority = Authority::new("the clinic");
        let files = lab.dir().to_owned();
        server(&authority).write(&files.join("server.pem"), &files.join("server.key"));
        replace(&files.join("clients.pem"), &authority.pem);
        let file = |name: &str| files.join(name).display().to_string();
        let settings = Settings {
            api: format!(
                "listen = \"0.0.0.0:{PORT}\"\n\
                 tls = {{ cert = {:?}, key = {:?}, client_ca = {:?} }}\n{ROLES}",
                file("server.pem"),
                file("server.key"),
                file("clients.pem"),
            ),
            ..Settings::default()
        };
        let daemon = Daemon::start(&lab, &program("WARDLINE_WARDLINED"), &settings).unwrap();
        let ctl = Ctl::new(&program("WARDLINE_WARDCTL"), &daemon).unwrap();
        Self {
            daemon,
            ctl,
            authority,
            files,
            lab,
        }
    }

    fn client(&self, common: &str, names: &[&str]) -> Signed {
        self.authority.sign(Kind::Client, common, names)
    }

    fn viewer(&self) -> Signed {
        self.client("vera", &[])
    }

    fn admin(&self) -> Signed {
        self.client("Ada", &["ada@clinic"])
    }

    /// Does something on the router, where the daemon listens.
    fn there<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        on(self.lab.router(), work)
    }

    /// Asks for the status, as a client from the router itself.
    fn status_for(&self, tls: ClientTlsConfig) -> Result<u64, Status> {
        self.there(async || {
            let channel = connect("127.0.0.1", tls).await?;
            let mut client = SegmentationClient::new(channel);
            let status = client.get_status(v1::GetStatusRequest {}).await?;
            Ok(status.into_inner().revision)
        })
    }

    /// Runs wardctl on the router, with nothing but these arguments and variables.
    fn wardctl(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
        let mut command = Command::new(self.ctl.binary());
        command
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .current_dir(&self.files)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.lab.router().spawn(&mut command).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn records(&self) -> Vec<Value> {
        let text = self
            .ctl
            .run(&["-o", "json", "audit"])
            .unwrap()
            .ok()
            .unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn close(self) {
        drop(self.daemon);
        self.lab.close().unwrap();
    }
}

fn server(authority: &Authority) -> Signed {
    authority.sign(
        Kind::Server,
        "router",
        &["127.0.0.1", "10.9.0.1", "localhost"],
    )
}

fn on<T: Send>(host: &Host, work: impl AsyncFnOnce() -> T + Send) -> T {
    host.run(|| block(work)).unwrap()
}

fn block<T>(work: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work())
}

async fn connect(address: &str, tls: ClientTlsConfig) -> Result<Channel, Status> {
    let failed = |error: tonic::transport::Error| Status::unavailable(format!("{error:?}"));
    Endpoint::from_shared(format!("https://{address}:{PORT}"))
        .unwrap()
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .tls_config(tls)
        .map_err(failed)?
        .connect()
        .await
        .map_err(failed)
}

async fn local(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://local")
        .connect_with_connector(connector)
        .await
        .unwrap()
}

/// Makes a call with an empty message, whatever it is, and waits for the beginning of its answer.
async fn ask(channel: &Channel, path: &str) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    let path = PathAndQuery::try_from(path).unwrap();
    let answer = grpc.server_streaming(Request::new(()), path, codec).await;
    match answer {
        Ok(mut answer) => match answer.get_mut().message().await {
            Ok(_) => Status::ok(""),
            Err(status) => status,
        },
        Err(status) => status,
    }
}

/// Who may make each call at least; written down here once more, to be compared.
const MATRIX: [(&str, &[&str]); 3] = [
    (
        "viewer",
        &[
            "wardline.v1.Segmentation/GetStatus",
            "wardline.v1.Segmentation/Plan",
            "wardline.v1.Segmentation/GetPolicy",
            "wardline.v1.Segmentation/ListRevisions",
            "wardline.v1.Segmentation/Explain",
            "wardline.v1.Segmentation/ListDevices",
            "wardline.v1.Segmentation/ListFlows",
            "wardline.v1.Segmentation/GetCounters",
            "wardline.v1.Segmentation/WatchEvents",
            "wardline.v1.Segmentation/ReadAudit",
            "grpc.health.v1.Health/Check",
            "grpc.health.v1.Health/Watch",
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ],
    ),
    (
        "operator",
        &[
            "wardline.v1.Segmentation/Quarantine",
            "wardline.v1.Segmentation/Release",
            "wardline.v1.Segmentation/Grant",
            "wardline.v1.Segmentation/Revoke",
        ],
    ),
    (
        "admin",
        &[
            "wardline.v1.Segmentation/Apply",
            "wardline.v1.Segmentation/Edit",
            "wardline.v1.Segmentation/Confirm",
            "wardline.v1.Segmentation/Rollback",
        ],
    ),
];

#[test]
fn each_role_may_make_its_calls_and_no_other() {
    let set = prost_types::FileDescriptorSet::decode(wardline_proto::DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().flat_map(|file| &file.service);
    let methods = services.flat_map(|service| &service.method);
    let all: BTreeSet<String> = methods
        .map(|method| format!("wardline.v1.Segmentation/{}", method.name()))
        .collect();
    let listed = MATRIX.iter().flat_map(|(_, calls)| *calls);
    let listed: BTreeSet<String> = listed
        .filter(|call| call.starts_with("wardline"))
        .map(|call| (*call).to_owned())
        .collect();
    assert_eq!(listed, all);

    let ward = Ward::new("roles");
    let clients = [
        (None, ward.client("nobody", &["nobody.example"])),
        (Some(0), ward.viewer()),
        (
            Some(1),
            ward.client("Otto", &["spiffe://clinic/netops/otto"]),
        ),
        // The highest of several names counts.
        (Some(2), ward.client("vera", &["ada@clinic", "10.0.0.1"])),
    ];
    let mut wrong = Vec::new();
    let mut judge = |who: &str, rank: Option<usize>, path: &str, level: usize, status: &Status| {
        let refused = matches!(
            status.code(),
            Code::PermissionDenied | Code::Unauthenticated
        );
        if refused == (rank >= Some(level)) {
            wrong.push(format!("{who} {path}: {status:?}"));
        }
    };
    let mut asked = 0;
    for (rank, client) in clients {
        let tls = client.shown_to(&ward.authority);
        let answers = ward.there(async || {
            let channel = connect("127.0.0.1", tls).await.unwrap();
            let mut answers = Vec::new();
            for (level, (_, calls)) in MATRIX.iter().enumerate() {
                for path in *calls {
                    answers.push((level, *path, ask(&channel, &format!("/{path}")).await));
                }
            }
            let unknown = ask(&channel, "/wardline.v1.Segmentation/Reboot").await;
            (answers, unknown)
        });
        for (level, path, status) in &answers.0 {
            judge(&format!("tls {rank:?}"), rank, path, *level, status);
            asked += 1;
        }
        let unknown = match rank {
            None => Code::PermissionDenied,
            Some(_) => Code::Unimplemented,
        };
        assert_eq!(answers.1.code(), unknown);
    }
    // On the socket uid 0 is admin.
    let socket = ward.daemon.socket().to_owned();
    let answers = ward.there(async || {
        let channel = local(socket).await;
        let mut answers = Vec::new();
        for (level, (_, calls)) in MATRIX.iter().enumerate() {
            for path in *calls {
                answers.push((level, *path, ask(&channel, &format!("/{path}")).await));
            }
        }
        answers
    });
    for (level, path, status) in &answers {
        judge("root", Some(2), path, *level, status);
        asked += 1;
    }
    assert_eq!(wrong, [""; 0]);
    println!("{asked} calls were judged");
    ward.close();
}

#[test]
fn another_user_on_the_socket_has_no_role() {
    use std::os::unix::fs::PermissionsExt as _;
    let ward = Ward::new("other-user");
    // Even when somebody has opened the way to the socket.
    let socket = ward.daemon.socket().to_owned();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let status = wardline_tests::as_user(65534, || {
        block(async || ask(&local(socket).await, "/wardline.v1.Segmentation/GetStatus").await)
    })
    .unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert!(
        status.message().contains("uid:65534 has no role"),
        "{status:?}"
    );
    let last = ward.records().pop().unwrap();
    assert_eq!(last["actor"], "uid:65534");
    ward.close();
}

#[test]
fn only_a_certificate_that_is_good_gets_in() {
    let ward = Ward::new("certificates");
    let other = Authority::new("somebody else");
    let signed = |authority: &Authority, kind| authority.sign(kind, "Ada", &["ada@clinic"]);
    assert_eq!(
        ward.status_for(ward.admin().shown_to(&ward.authority))
            .unwrap(),
        0
    );
    let before = ward.records().len();
    for (what, tls) in [
        ("none", believing(&ward.authority)),
        (
            "expired",
            signed(&ward.authority, Kind::Expired).shown_to(&ward.authority),
        ),
        (
            "not yet valid",
            signed(&ward.authority, Kind::NotYet).shown_to(&ward.authority),
        ),
        (
            "a server's",
            signed(&ward.authority, Kind::Server).shown_to(&ward.authority),
        ),
        (
            "of another authority",
            signed(&other, Kind::Client).shown_to(&ward.authority),
        ),
    ] {
        let answer = ward.status_for(tls);
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
    // A client that believes somebody else does not even show its own.
    assert!(ward.status_for(ward.admin().shown_to(&other)).is_err());
    // There is no plaintext.
    let plain = ward.there(async || {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{PORT}")).unwrap();
        let channel = endpoint.timeout(PATIENCE).connect().await;
        match channel {
            Ok(channel) => ask(&channel, "/wardline.v1.Segmentation/GetStatus").await,
            Err(error) => Status::unavailable(error.to_string()),
        }
    });
    assert_ne!(plain.code(), Code::Ok);
    // Strangers leave no trace but in the log: they could fill the disk.
    assert_eq!(ward.records().len(), before);
    assert!(
        ward.daemon.log().contains("turned away"),
        "{}",
        ward.daemon.log()
    );

    // wardctl says what is wrong, in words.
    let file = |name: &str| ward.files.join(name).display().to_string();
    let ca = file("clients.pem");
    let expired = signed(&ward.authority, Kind::Expired);
    expired.write(&ward.files.join("old.pem"), &ward.files.join("old.key"));
    let server = format!("https://127.0.0.1:{PORT}");
    let words = ["--server", &server, "--ca", &ca, "--cert", &file("old.pem")];
    let (code, _, told) = ward.wardctl(
        &[&words[..], &["--key", &file("old.key"), "status"]].concat(),
        &[],
    );
    assert_eq!(code, 1, "{told}");
    assert!(told.to_lowercase().contains("expired"), "{told}");
    ward.close();
}

#[test]
fn certificates_change_without_a_restart() {
    let ward = Ward::new("reload");
    let file = |name: &str| ward.files.join(name);
    let (old, new) = (ward.admin(), Authority::new("the new one"));
    let fresh = new.sign(Kind::Client, "Ada", &["ada@clinic"]);
    assert!(ward.status_for(fresh.shown_to(&ward.authority)).is_err());

    // A key that does not fit is told, and what was there goes on.
    replace(&file("server.key"), &server(&new).key);
    assert!(
        eventually(PATIENCE, || ward.daemon.log().contains("not the key of")),
        "{}",
        ward.daemon.log()
    );
    assert!(ward.status_for(old.shown_to(&ward.authority)).is_ok());

    // Another certificate for the router: clients that believe the new authority get in.
    server(&new).write(&file("server.pem"), &file("server.key"));
    assert!(eventually(PATIENCE, || ward
        .status_for(old.shown_to(&new))
        .is_ok()));
    assert!(ward.status_for(old.shown_to(&ward.authority)).is_err());

    // Other clients: who is connected and not believed any more is cut off, streams too.
    let tls = old.shown_to(&new);
    let clients = file("clients.pem");
    let pem = new.pem.clone();
    let cut = ward.there(async || {
        let channel = connect("127.0.0.1", tls).await.unwrap();
        let mut client = SegmentationClient::new(channel);
        let request = v1::WatchEventsRequest {
            since_s: 0,
            follow: true,
        };
        let mut events = client.watch_events(request).await.unwrap().into_inner();
        replace(&clients, &pem);
        let end = tokio::time::timeout(PATIENCE, events.message()).await;
        let again = client.get_status(v1::GetStatusRequest {}).await;
        (end.map(|message| message.is_err()), again.is_err())
    });
    assert_eq!(cut, (Ok(true), true));
    assert!(ward.status_for(old.shown_to(&new)).is_err());
    assert!(ward.status_for(fresh.shown_to(&new)).is_ok());
    ward.close();
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A TLS connection that says nothing yet; nothing where the router takes no more.
fn raw(address: &str, client: &Signed, authority: &Authority) -> Option<Tls> {
    let mut roots = RootCertStore::empty();
    let pem = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
    roots.add(pem).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(client.cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = address.to_owned().try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect((address, PORT)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut tls = StreamOwned::new(connection, stream);
    tls.flush().ok().map(|()| tls)
}

/// Whether the far end has closed.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn clients_that_mean_harm_leave_the_others_served() {
    let ward = Ward::new("hostile");
    let attacker = ward.lab.host("attacker").unwrap();
    ward.lab
        .wire(
            &End::new(&attacker, "eth0").address("10.9.0.2/24"),
            &End::new(ward.lab.router(), "out0").address("10.9.0.1/24"),
        )
        .unwrap();
    ward.lab.settle().unwrap();
    const ROUTER: &str = "10.9.0.1";
    // Others, on the socket and over TCP, while all that follows is going on.
    let admin = ward.admin();
    let served = |what: &str| {
        let started = std::time::Instant::now();
        let status = ward.ctl.run(&["status"]).unwrap();
        assert_eq!(status.code, 0, "{what}: {status:?}");
        ward.status_for(admin.shown_to(&ward.authority))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let applied = ward.ctl.apply(POLICY).unwrap();
        assert_eq!(applied.code, 0, "{what}: {applied:?}");
        let took = started.elapsed();
        println!("served in {took:?} beside: {what}");
        assert!(took < PATIENCE, "{what}");
    };

    let strangers = |bytes: &'static [u8]| {
        let open = || {
            let mut stream = TcpStream::connect((ROUTER, PORT)).unwrap();
            let _ = stream.write_all(bytes);
            stream
        };
        attacker
            .run(|| (0..200).map(|_| open()).collect::<Vec<_>>())
            .unwrap()
    };
    let mut silent = strangers(b"");
    served("200 connections that say nothing");
    let garbage = strangers(b"\x00\xffgarbage\r\n\r\n");
    served("garbage");
    // The first bytes of a greeting that says it is 500 bytes long.
    let halves = strangers(b"\x16\x03\x01\x01\xf4\x01\x00");
    served("half a greeting");
    let gone = eventually(PATIENCE, || silent.iter_mut().all(is_closed));
    assert!(gone, "who says nothing is not sent away");
    drop((silent, garbage, halves));

    // Clients with a certificate, which may look.
    let viewer = ward.viewer();
    let mut mute: Vec<Tls> = attacker
        .run(|| {
            (0..40)
                .filter_map(|_| raw(ROUTER, &viewer, &ward.authority))
                .collect()
        })
        .unwrap();
    served("40 clients that say who they are, and then nothing");
    let gone = eventually(PATIENCE, || {
        mute.iter_mut().all(|tls| is_closed(&mut tls.sock))
    });
    assert!(gone, "who does not begin is not sent away");
    let mut odd: Vec<Tls> = attacker
        .run(|| {
            let words: [&[u8]; 4] = [
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                &[0; 24],
            ];
            let say = |words: &&[u8]| {
                let mut tls = raw(ROUTER, &viewer, &ward.authority).unwrap();
                let _ = tls.write_all(words);
                let _ = tls.flush();
                tls
            };
            words.iter().map(say).collect()
        })
        .unwrap();
    served("odd words after the greeting");
    // HTTP/1.1 and what is no frame are sent away at once.
    assert!(eventually(PATIENCE, || is_closed(&mut odd[0].sock)));
    assert!(eventually(PATIENCE, || is_closed(&mut odd[2].sock)));
    // Who begins and then does not answer whether it is there: looked at last, it takes a while.
    let mut half_open = odd.swap_remove(1);
    drop((mute, odd));

    // A request of a gigabyte: what it says, and what it sends.
    let shown = || viewer.shown_to(&ward.authority);
    let (claimed, sent) = on(&attacker, async || {
        let channel = connect(ROUTER, shown()).await.unwrap();
        let claimed = stream_to(&channel, "Plan", 1 << 30, 1 << 20, Duration::ZERO).await;
        // 64 KB are enough for any call but those that carry a document.
        let sent = stream_to(&channel, "GetStatus", 1 << 20, 1 << 20, Duration::ZERO).await;
        (claimed, sent)
    });
    assert_eq!(claimed.code(), Code::OutOfRange, "{claimed:?}");
    assert_eq!(sent.code(), Code::ResourceExhausted, "{sent:?}");
    served("a gigabyte");

    // Slow ones: one byte now and then. They hold this client's places for documents, no others.
    thread::scope(|scope| {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (said, ready) = std::sync::mpsc::channel();
        let (attacker, shown) = (&attacker, &shown);
        let slow = scope.spawn(move || {
            on(attacker, async || {
                let channel = connect(ROUTER, shown()).await.unwrap();
                let mut slow = tokio::task::JoinSet::new();
                for _ in 0..8 {
                    let channel = channel.clone();
                    slow.spawn(async move {
                        let pause = Duration::from_millis(100);
                        stream_to(&channel, "Plan", 1 << 20, 1 << 20, pause).await
                    });
                }
                // Those beyond the four that one client may have are refused at once.
                for _ in 0..4 {
                    let status = slow.join_next().await.unwrap().unwrap();
                    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                }
                said.send(()).unwrap();
                let mut stopped = stopped;
                let _ = stopped.wait_for(|stop| *stop).await;
            });
        });
        ready.recv_timeout(PATIENCE).unwrap();
        served("slow requests");
        stop.send_replace(true);
        slow.join().unwrap();
    });

    // Too many, too fast: of calls that count as ten, so that a busy machine is fast enough too.
    let refused = on(&attacker, async || {
        let channel = connect(ROUTER, shown()).await.unwrap();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let channel = channel.clone();
            calls.spawn(async move {
                let mut refused = 0;
                for _ in 0..250 {
                    let status = ask(&channel, "/wardline.v1.Segmentation/Plan").await;
                    refused += u32::from(status.code() == Code::ResourceExhausted);
                }
                refused
            });
        }
        calls.join_all().await.into_iter().sum::<u32>()
    });
    assert!(refused > 100, "{refused} of 1000 were refused");
    served("1000 documents as fast as they go");
    let records = ward.records();
    let told: u64 = records
        .iter()
        .filter(|record| {
            record["actor"] == "cert:vera" && record["outcome"] == "resource_exhausted"
        })
        .map(|record| 1 + record["more"].as_u64().unwrap())
        .sum();
    println!(
        "{refused} refused, {} records, {told} told so far",
        records.len()
    );
    assert!(records.len() < 300, "{} records", records.len());

    let gone = eventually(Duration::from_secs(60), || is_closed(&mut half_open.sock));
    assert!(gone, "who does not answer is not sent away");

    let pid = ward.daemon.pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    println!("the daemon's memory: {peak}");
    ward.close();
}

/// Makes a call whose message says it has `says` bytes, in pieces of 1 KB up to `sends`, and tells
/// how it ended.
async fn stream_to(
    channel: &Channel,
    call: &str,
    says: u32,
    sends: usize,
    pause: Duration,
) -> Status {
    use tonic::{body::Body, codegen::http};
    use tower::ServiceExt as _;
    let mut first = vec![0];
    first.extend(says.to_be_bytes());
    let pieces = std::iter::once(first).chain(std::iter::repeat_n(vec![0; 1024], sends / 1024));
    let pieces = tokio_stream::iter(pieces);
    let pieces = tokio_stream::StreamExt::then(pieces, move |piece| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let frame = http_body::Frame::data(tonic::codegen::Bytes::from(piece));
        Ok::<_, Status>(frame)
    });
    let request = http::Request::post(format!("https://{PORT}/wardline.v1.Segmentation/{call}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(http_body_util::StreamBody::new(pieces)))
        .unwrap();
    let answer = match channel.clone().oneshot(request).await {
        Ok(answer) => answer,
        Err(error) => return Status::unknown(error.to_string()),
    };
    Status::from_header_map(answer.headers()).unwrap_or_else(|| Status::ok(""))
}

#[test]
fn the_audit_has_who_changed_what_and_who_was_refused() {
    let mut ward = Ward::new("audit");
    ward.ctl.apply(POLICY).unwrap().ok().unwrap();
    let other = POLICY.replace("name: a", "name: b");
    let file = ward.files.join("other.yaml");
    fs::write(&file, &other).unwrap();
    let reason = [
        "apply",
        "-f",
        file.to_str().unwrap(),
        "--reason",
        "ticket \"17\"\n",
    ];
    ward.ctl.run(&reason).unwrap().ok().unwrap();
    let bad = ward.ctl.apply("version: 1\nrules: [{name: r}]\n").unwrap();
    assert_eq!(bad.code, 4);
    let (viewer, admin) = (ward.viewer(), ward.admin());
    let tls = [viewer, admin].map(|client| client.shown_to(&ward.authority));
    ward.there(async || {
        for tls in tls {
            let channel = connect("127.0.0.1", tls).await.unwrap();
            let mut client = SegmentationClient::new(channel);
            let mut request = Request::new(v1::ApplyRequest {
                policy: Some(wardline_proto::document::parse(POLICY).0),
                reason: "back".to_owned(),
                ..Default::default()
            });
            request
                .metadata_mut()
                .insert("x-request-id", "r-1".parse().unwrap());
            let _ = client.apply(request).await;
            let _ = client.get_status(v1::GetStatusRequest {}).await;
        }
    });
    let records = ward.records();
    let told: Vec<String> = records
        .iter()
        .map(|record| {
            let of = |field: &str| record[field].to_string().replace('"', "");
            let fields = [
                "sequence", "actor", "role", "call", "reason", "outcome", "before", "after",
            ];
            fields.map(of).join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "1 uid:0 admin Apply  ok 0 1",
            "2 uid:0 admin Apply ticket \\17\\\\n ok 1 2",
            "3 uid:0 admin Apply  invalid_argument null null",
            "4 cert:vera viewer Apply  permission_denied null null",
            "5 cert:ada@clinic admin Apply back ok 2 3",
        ]
    );
    assert_eq!(records[4]["request_id"], "r-1");
    assert_ne!(records[0]["request_id"], records[1]["request_id"]);
    assert!(records[0]["address"].as_str().unwrap().starts_with("unix:"));
    assert!(
        records[4]["address"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );

    // Whole, and remembered by its head; an export says the same.
    let head = |ward: &Ward| {
        let text = ward.ctl.run(&["audit", "--verify"]).unwrap().ok().unwrap();
        text.rsplit_once("head ").unwrap().1.trim().to_owned()
    };
    let noted = head(&ward);
    assert!(noted.starts_with("5:"), "{noted}");
    let export = ward.files.join("export.jsonl");
    let text = ward.ctl.run(&["-o", "json", "audit"]).unwrap().stdout;
    fs::write(&export, &text).unwrap();
    let exported = ["audit", "--file", export.to_str().unwrap()];
    let verified = [&exported[..], &["--verify", "--head", &noted]].concat();
    assert_eq!(ward.ctl.run(&verified).unwrap().code, 0);
    assert!(
        ward.ctl
            .run(&exported)
            .unwrap()
            .stdout
            .contains("cert:vera")
    );
    let newest = ward
        .ctl
        .run(&["-o", "json", "audit", "--limit", "2"])
        .unwrap()
        .stdout;
    assert_eq!(
        newest.lines().collect::<Vec<_>>(),
        text.lines().skip(3).collect::<Vec<_>>()
    );

    // Touched: each kind is found, where it is.
    let kept = ward
        .daemon
        .config()
        .with_file_name("state")
        .join("audit.jsonl");
    let findings = |ward: &Ward, arguments: &[&str]| {
        let answer = ward
            .ctl
            .run(&[&["audit", "--verify"], arguments].concat())
            .unwrap();
        assert_eq!(answer.code, 4, "{answer:?}");
        answer.stderr
    };
    let lines: Vec<&str> = text.lines().collect();
    let write = |lines: &[&str]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&kept, text).unwrap();
    };
    let forged = lines[3].replace("cert:vera", "cert:otto");
    write(&[lines[0], lines[1], lines[2], &forged, lines[4]]);
    assert!(findings(&ward, &[]).starts_with("line 4: record 4 was changed"));
    write(&[lines[0], lines[2], lines[3], lines[4]]);
    assert_eq!(findings(&ward, &[]), "line 2: record 2 is missing\n");
    write(&lines[..3]);
    assert_eq!(
        findings(&ward, &[]),
        "after line 3: records 4 to 5 are missing, which were there once\n"
    );
    // It stays to be seen after a restart, and after the next record.
    ward.daemon.restart().unwrap();
    assert!(
        ward.daemon.log().contains("tampered"),
        "{}",
        ward.daemon.log()
    );
    ward.ctl.apply(POLICY).unwrap().ok().unwrap();
    assert_eq!(findings(&ward, &[]), "line 4: records 4 to 5 are missing\n");
    // Nobody but a head that was noted elsewhere tells that all of it was made anew.
    ward.daemon.terminate().unwrap();
    fs::remove_file(&kept).unwrap();
    fs::remove_file(kept.with_extension("head")).unwrap();
    ward.daemon.restart().unwrap();
    for _ in 0..7 {
        ward.ctl.apply(POLICY).unwrap().ok().unwrap();
    }
    // Four from the history, and seven.
    assert!(head(&ward).starts_with("11:"));
    assert_eq!(
        findings(&ward, &["--head", &noted]),
        "line 5: record 5 is not the one that was noted\n"
    );
    ward.close();
}

#[test]
fn a_change_that_a_crash_kept_from_the_audit_is_found_in_the_history() {
    let mut ward = Ward::new("found");
    ward.ctl.apply(POLICY).unwrap().ok().unwrap();
    let kept = ward.daemon.config().with_file_name("state/audit.jsonl");
    let before = [kept.clone(), kept.with_extension("head")].map(|path| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    });
    let reason = ["--reason", "ticket 17"];
    let file = ward.files.join("p.yaml");
    fs::write(&file, POLICY).unwrap();
    let apply = [&["apply", "-f", file.to_str().unwrap()], &reason[..]].concat();
    ward.ctl.run(&apply).unwrap().ok().unwrap();
    ward.daemon.kill9().unwrap();
    for (path, bytes) in before {
        fs::write(path, bytes).unwrap();
    }
    for _ in 0..2 {
        ward.daemon.restart().unwrap();
        let records = ward.records();
        assert_eq!(records.len(), 2);
        assert_eq!(records[1]["reason"], "ticket 17");
        assert_eq!(
            (&records[1]["before"], &records[1]["after"]),
            (&1.into(), &2.into())
        );
        assert!(
            records[1]["message"]
                .as_str()
                .unwrap()
                .contains("found in the history")
        );
    }
    assert_eq!(ward.ctl.run(&["audit", "--verify"]).unwrap().code, 0);
    ward.close();
}

/// Asks the router's metrics, in the words of HTTP.
fn scrape(ward: &Ward, request: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect("127.0.0.1:9643").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        // Who is sent away has no answer.
        let _ = stream.read_to_string(&mut text);
        text
    };
    ward.lab.router().run(ask).unwrap()
}

#[test]
fn metrics_are_the_numbers_of_this_moment() {
    let ward = Ward::new("metrics");
    ward.ctl.apply(POLICY).unwrap().ok().unwrap();
    assert_eq!(
        ward.ctl
            .apply("version: 1\nrules: [{name: r}]\n")
            .unwrap()
            .code,
        4
    );
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let text = scrape(&ward, request);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for line in [
        "wardline_router{router=\"lab-router\",version=\"0.1.0\"} 1",
        "wardline_revision 1",
        "wardline_calls_total{call=\"Apply\",outcome=\"ok\"} 1",
        "wardline_calls_total{call=\"Apply\",outcome=\"invalid_argument\"} 1",
        "wardline_packets_total{reason=\"no_rule\",verdict=\"drop\"} 0",
        "wardline_events_lost_total 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in {text}");
    }
    assert!(text.contains("wardline_table_size{table="), "{text}");
    assert!(
        text.contains("wardline_certificate_left_seconds "),
        "{text}"
    );
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "405",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let text = scrape(&ward, request);
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
    }
    // Clients that say nothing are sent away, and others get their turn then.
    let silent: Vec<TcpStream> = ward
        .lab
        .router()
        .run(|| {
            (0..40)
                .map(|_| TcpStream::connect("127.0.0.1:9643").unwrap())
                .collect()
        })
        .unwrap();
    let told = eventually(3 * PATIENCE, || {
        scrape(&ward, request).starts_with("HTTP/1.1 200")
    });
    assert!(told);
    drop(silent);
    ward.close();
}

#[test]
fn a_change_whose_client_is_gone_has_its_record_all_the_same() {
    let ward = Ward::new("gone");
    let mut policy = wardline_proto::document::parse(POLICY).0;
    for device in 0..2000_u32 {
        policy.devices.push(v1::Device {
            name: format!("d{device}"),
            zone: "a".to_owned(),
            addresses: vec![format!("10.1.{}.{}", device / 250, device % 250 + 1)],
            ..Default::default()
        });
    }
    let socket = ward.daemon.socket().to_owned();
    ward.there(async || {
        for n in 0..20_u64 {
            let mut client = SegmentationClient::new(local(socket.clone()).await);
            let request = v1::ApplyRequest {
                policy: Some(policy.clone()),
                reason: n.to_string(),
                ..Default::default()
            };
            let patience = Duration::from_millis(5 * n);
            let _ = tokio::time::timeout(patience, client.apply(request)).await;
        }
    });
    let agreed = eventually(PATIENCE, || {
        let revision = ward.ctl.json(&["status"]).unwrap()["revision"]
            .as_u64()
            .unwrap();
        let made = ward
            .records()
            .iter()
            .filter(|record| record["outcome"] == "ok")
            .count();
        revision > 0 && made as u64 == revision
    });
    assert!(agreed, "{:#?}", ward.records());
    ward.close();
}

#[test]
fn a_context_is_the_way_to_a_router() {
    let ward = Ward::new("contexts");
    let admin = ward.admin();
    admin.write(&ward.files.join("ada.pem"), &ward.files.join("ada.key"));
    let contexts = ward.files.join("home/contexts.yaml");
    let home = [("WARDLINE_CONTEXTS", contexts.to_str().unwrap())];
    let run = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        ward.wardctl(&words, &home)
    };
    let ok = |line: &str| {
        let (code, out, err) = run(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        out
    };
    let fails = |line: &str, expected: i32, word: &str| {
        let (code, out, err) = run(line);
        assert_eq!(code, expected, "{line}: {out}{err}");
        assert!(err.contains(word), "{line}: {err}");
    };
    assert_eq!(ok("context list"), "no contexts\n");
    fails("context use ward-3", 4, "there is none yet");
    fails("status --context ward-3", 4, "there is none yet");
    fails("context set ward-3", 2, "--server");
    fails(
        "context set ward-3 --server https://127.0.0.1:7443 --ca clients.pem",
        2,
        "--cert, --key",
    );
    fails("context set ward-3 --server ftp://x", 2, "unix:///PATH");
    ok(
        "context set ward-3 --server https://127.0.0.1:7443 --ca clients.pem --cert ada.pem --key ada.key",
    );
    // The first is the current one; its files are found from anywhere.
    assert!(ok("status").contains("lab-router"));
    let socket = ward.ctl.server();
    ok(&format!("context set here --server {socket}"));
    assert!(ok("context list").contains("*  ward-3  https://127.0.0.1:7443/"));
    ok("context use here");
    assert!(ok("status").contains("lab-router"));
    let json: Value = serde_json::from_str(&ok("-o json context list")).unwrap();
    assert_eq!(json["current"], "here");
    assert_eq!(json["contexts"][1]["name"], "ward-3");
    assert_eq!(json["contexts"][0]["server"], socket);
    // Which of them was used, the router tells.
    let file = ward.files.join("p.yaml");
    fs::write(&file, POLICY).unwrap();
    assert_eq!(run("apply -f p.yaml").0, 0);
    assert_eq!(run("apply -f p.yaml --context ward-3").0, 0);
    let records = ward.records();
    assert_eq!(records[0]["actor"], "uid:0");
    assert_eq!(records[1]["actor"], "cert:ada@clinic");
    // Named beats the environment, and the command line beats the current one.
    let environment = [home[0], ("WARDLINE_SERVER", "unix:///nowhere.sock")];
    let status = |words: &[&str]| ward.wardctl(words, &environment).0;
    assert_eq!(status(&["status"]), 1);
    assert_eq!(status(&["status", "--context", "ward-3"]), 0);
    assert_eq!(status(&["status", "--server", socket]), 0);
    fails(
        &format!("status --context here --server {socket}"),
        2,
        "leave out --server",
    );
    // Wrong words, wrong files.
    fails("context use ward-4", 4, "there are: here, ward-3");
    fails("status --context ward-4", 4, "there are: here, ward-3");
    fails("context delete ward-4", 4, "no context \"ward-4\"");
    fails(
        "status --context ward-3 --cert nowhere.pem",
        1,
        "nowhere.pem",
    );
    let (_, _, warning) = run("context set ward-3 --key nowhere.key");
    assert!(warning.starts_with("warning: can't read"), "{warning}");
    ok("context delete here");
    let list = ok("context list");
    assert!(!list.contains('*') && !list.contains("here"), "{list}");
    fails("status", 1, "/run/wardline/api.sock");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&contexts).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    fs::write(&contexts, "contexts:\n  a:\n    sever: x\n").unwrap();
    fails("status", 4, "contexts.yaml: ");
    fails("context list", 4, "unknown field `sever`");
    ward.close();
}
