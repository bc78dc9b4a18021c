//! Which role may make which call, over both transports.

use std::{collections::BTreeSet, fs};

use prost::Message as _;
use tonic::{Code, Status};

use super::{Ward, ask, block, connect, local};

/// The least role for each call, written down a second time to compare the daemon with.
const MATRIX: [(&str, &[&str]); 3] = [
    (
        "viewer",
        &[
            "wardline.v1.Segmentation/GetStatus",
            "wardline.v1.Segmentation/Plan",
            "wardline.v1.Segmentation/GetPolicy",
            "wardline.v1.Segmentation/ListRevisions",
            "wardline.v1.Segmentation/Explain",
            "wardline.v1.Segmentation/ExplainDrops",
            "wardline.v1.Segmentation/ListDevices",
            "wardline.v1.Segmentation/ListUnknown",
            "wardline.v1.Segmentation/ListInterfaces",
            "wardline.v1.Segmentation/ListServices",
            "wardline.v1.Segmentation/CheckMud",
            "wardline.v1.Segmentation/ListNames",
            "wardline.v1.Segmentation/AssessMud",
            "wardline.v1.Segmentation/DraftMud",
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
            "wardline.v1.Segmentation/Rename",
            "wardline.v1.Segmentation/AdoptDevice",
            "wardline.v1.Segmentation/ImportDevices",
            "wardline.v1.Segmentation/Confirm",
            "wardline.v1.Segmentation/Rollback",
            "wardline.v1.Segmentation/GetBackup",
            "wardline.v1.Segmentation/ImportMud",
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
    // Even when the permissions of the socket let it connect.
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
