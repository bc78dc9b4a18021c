//! Access to the daemon: roles, certificates, hostile clients, and the audit of it all.

mod audit;
mod calls;
mod certificates;
mod first_day;
mod harm;
mod metrics;
mod python;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tonic::{
    Request, Status,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tonic_prost::ProstCodec;
use wardline_proto::v1::{self, segmentation_client::SegmentationClient};
use wardline_tests::{Ctl, Daemon, Host, Lab, Settings, ward::program};

use super::authority::{Authority, Kind, Signed, replace};

pub(super) const PORT: u16 = 7443;
const PATIENCE: Duration = Duration::from_secs(15);
const POLICY: &str = "version: 1\nzones: [{name: a, subnets: [10.1.0.0/16]}]\n";
const ROLES: &str = r#"roles = [
  { match = "cn:vera", role = "viewer" },
  { match = "uri:spiffe://clinic/netops/*", role = "operator" },
  { match = "email:*@clinic", role = "admin" },
]"#;

/// A daemon that serves TCP, and the authority that signs its clients' certificates.
pub(super) struct Ward {
    pub(super) daemon: Daemon,
    ctl: Ctl,
    authority: Authority,
    files: PathBuf,
    lab: Lab,
}

impl Ward {
    pub(super) fn new(name: &str) -> Self {
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

    /// Runs `work` on the router, where the daemon listens.
    pub(super) fn there<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
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

    pub(super) fn close(self) {
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

/// Makes any call with an empty message, and waits for the beginning of its answer.
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
