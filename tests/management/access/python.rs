//! The example client in Python: over TCP with certificates, and over the Unix socket as grpcio comes.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;
use wardline_tests::ward::skip;

use super::{PORT, Signed, Ward};

/// Debian's, for which `cargo xtask setup` installs grpcio.
const PYTHON: &str = "/usr/bin/python3";
const PLUGIN: &str = "/usr/bin/grpc_python_plugin";

/// What newer versions of grpcio and grpc-java name as the host of a Unix socket.
const AUTHORITIES: [&str; 2] = ["%2Frun%2Fwardline%2Fapi.sock", "/run/wardline/api.sock"];

/// Asks for the status over the socket, with each authority; prints the router's name each time.
const ASK: &str = "
import sys, grpc
from wardline.v1 import segmentation_pb2 as api, segmentation_pb2_grpc
for authority in sys.argv[2:]:
    with grpc.insecure_channel(sys.argv[1], options=[('grpc.default_authority', authority)]) as channel:
        stub = segmentation_pb2_grpc.SegmentationStub(channel)
        for _ in range(3):
            print(stub.GetStatus(api.GetStatusRequest(), timeout=15).router)
";

impl Ward {
    /// Runs Python on the router, beside the code that was made of the proto file.
    fn python(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(PYTHON);
        command
            .args(arguments)
            .env("PYTHONPATH", &self.files)
            .current_dir(&self.files)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.lab.router().spawn(&mut command).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        (code, text(output.stdout), text(output.stderr))
    }
}

#[test]
fn the_python_client_pushes_zones_and_watches_events() {
    const NAME: &str = "the_python_client_pushes_zones_and_watches_events";
    let grpcio = Command::new(PYTHON).args(["-c", "import grpc"]).output();
    if !grpcio.is_ok_and(|it| it.status.success()) || !Path::new(PLUGIN).exists() {
        return skip(NAME, "no grpcio for Python, or no protoc with its plugin");
    }
    let ward = Ward::new("python");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let example = root.join("examples/python");
    let mut protoc = Command::new("protoc");
    protoc
        .args(["--python_out=.", "--grpc_python_out=."])
        .arg(format!("--plugin=protoc-gen-grpc_python={PLUGIN}"))
        .arg("-I")
        .arg(root.canonicalize().unwrap().join("proto"))
        .arg("wardline/v1/segmentation.proto")
        .current_dir(&ward.files);
    assert!(protoc.status().unwrap().success());
    let copy = |name: &str| fs::copy(example.join(name), ward.files.join(name)).unwrap();
    copy("wardline_client.py");
    copy("labs.json");
    let write = |name: &str, signed: Signed| {
        let file = |end: &str| ward.files.join(format!("{name}.{end}"));
        signed.write(&file("pem"), &file("key"));
    };
    write("ada", ward.admin());
    write("vera", ward.viewer());
    fs::write(ward.files.join("ca.pem"), &ward.authority.pem).unwrap();
    let server = format!("127.0.0.1:{PORT}");
    let client = |who: &str, words: &[&str]| {
        let (cert, key) = (format!("{who}.pem"), format!("{who}.key"));
        let tls = ["--ca", "ca.pem", "--cert", &cert, "--key", &key];
        let head = ["wardline_client.py", "--server", &server];
        ward.python(&[&head[..], &tls, words].concat())
    };
    let push = ["push", "labs.json", "--reason", "second floor"];

    // Who may only look is refused, and told.
    let (code, told, complaints) = client("vera", &push);
    assert_eq!((code, told.as_str()), (4, ""), "{complaints}");
    assert!(complaints.contains("PERMISSION_DENIED"), "{complaints}");

    let (code, told, complaints) = client("ada", &push);
    assert_eq!((code, told.as_str()), (0, "revision 1\n"), "{complaints}");
    let policy = ward.ctl.run(&["get"]).unwrap().ok().unwrap();
    assert!(policy.contains("name: labs\n"), "{policy}");
    // It was confirmed: nothing waits.
    let (code, told, complaints) = client("ada", &push);
    let same = "revision 1, as before\n";
    assert_eq!((code, told.as_str()), (0, same), "{complaints}");

    // A problem is told as the router names it.
    let labs = fs::read_to_string(ward.files.join("labs.json")).unwrap();
    let wrong = labs.replace("zone:labs", "zone:lab");
    fs::write(ward.files.join("wrong.json"), wrong).unwrap();
    let (code, _, complaints) = client("ada", &["push", "wrong.json", "--reason", "no"]);
    assert_eq!(code, 4, "{complaints}");
    let place = "the document has problems: rules[0].from[0]: ";
    assert!(complaints.contains(place), "{complaints}");

    // A change that nobody confirms makes an event, which the client waits for.
    let hasty = labs.replace("second floor", "third floor");
    let file = ward.files.join("hasty.json").display().to_string();
    fs::write(&file, hasty).unwrap();
    let put = ["put", "-f", &file, "--confirm-within", "1s"];
    let change = ward.ctl.run(&[&["-o", "json"], &put[..]].concat());
    let change: Value = serde_json::from_str(&change.unwrap().ok().unwrap()).unwrap();
    assert_eq!(change["unchanged"], false, "{change}");
    let (code, events, complaints) = client("vera", &["watch", "--count", "1"]);
    assert_eq!(code, 0, "{complaints}");
    let event: Value = serde_json::from_str(&events).unwrap();
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("not confirmed"), "{event}");

    // Over the Unix socket: whatever host the library names.
    let socket = format!("unix://{}", ward.daemon.socket().display());
    let (code, told, complaints) = ward.python(&[&["-c", ASK, &socket], &AUTHORITIES[..]].concat());
    assert_eq!(code, 0, "{complaints}");
    assert_eq!(told, "lab-router\n".repeat(3 * AUTHORITIES.len()));
    ward.close();
}
