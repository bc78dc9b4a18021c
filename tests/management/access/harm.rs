//! Hostile clients do not keep others from being served.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tonic::{Code, Status, transport::Channel};
use wardline_proto::v1::{self, segmentation_client::SegmentationClient};
use wardline_tests::{End, eventually};

use super::{PATIENCE, POLICY, PORT, Ward, ask, connect, on};
use crate::management::authority::{Authority, Signed};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A TLS connection that has sent no request yet; none when the router accepts no more.
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
    // Other clients, on the socket and over TCP, are served during all that follows.
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
            .run(|| (0..300).map(|_| open()).collect::<Vec<_>>())
            .unwrap()
    };
    let mut silent = strangers(b"");
    served("300 connections that say nothing");
    let garbage = strangers(b"\x00\xffgarbage\r\n\r\n");
    served("garbage");
    // The first bytes of a ClientHello that claims to be 500 bytes long.
    let halves = strangers(b"\x16\x03\x01\x01\xf4\x01\x00");
    served("half a greeting");
    let gone = eventually(PATIENCE, || silent.iter_mut().all(is_closed));
    assert!(gone, "silent connections are not closed");
    drop((silent, garbage, halves));

    // Clients with the certificate of a viewer.
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
    assert!(gone, "clients that send no request are not closed");
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
    // HTTP/1.1 and bytes that are no HTTP/2 frame are closed at once.
    assert!(eventually(PATIENCE, || is_closed(&mut odd[0].sock)));
    assert!(eventually(PATIENCE, || is_closed(&mut odd[2].sock)));
    // A client that begins HTTP/2 but answers no keepalive ping: checked last, as it takes a while.
    let mut half_open = odd.swap_remove(1);
    drop((mute, odd));

    // A request that claims to be a gigabyte, and one that sends too much.
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

    // A request of two bytes a rule, each of which is some hundred once it is decoded.
    let small = v1::Policy {
        rules: vec![v1::Rule::default(); 1_000_000],
        ..v1::Policy::default()
    };
    let request = v1::PlanRequest {
        policy: Some(small),
        ..v1::PlanRequest::default()
    };
    let before = memory(&ward);
    let grown = on(&attacker, async || {
        let channel = connect(ROUTER, shown()).await.unwrap();
        let mut client = SegmentationClient::new(channel);
        client.plan(request).await.unwrap_err()
    });
    assert_eq!(grown.code(), Code::ResourceExhausted, "{grown:?}");
    assert!(grown.message().contains("memory"), "{grown:?}");
    let peak = memory(&ward);
    println!("2 MB of empty rules: from {before} kB to {peak} kB");
    assert!(peak - before < 100 << 10, "from {before} kB to {peak} kB");
    served("empty rules");

    // Slow requests, a piece now and then. They take this client's slots for documents, and no
    // others.
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

    // Calls beyond the rate limit, of a kind that counts as ten, so that a busy machine exceeds it
    // too.
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
    assert!(gone, "a client that answers no ping is not closed");

    println!("the daemon's memory: {} kB at most", memory(&ward));
    ward.close();
}

/// The most memory that the daemon has had, in kB.
fn memory(ward: &Ward) -> u64 {
    let pid = ward.daemon.pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = peak.unwrap().split_whitespace();
    words.take(1).collect::<String>().parse().unwrap()
}

/// Makes a call whose message claims to have `says` bytes, in pieces of 1 KB up to `sends`, and
/// returns its status.
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
