//! The gate that every request passes before a handler: it checks the peer's identity, role and
//! limits, and writes the audit.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use jiff::Timestamp;
use tokio::time::{Sleep, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use wardline_proto::{audit::Record, decoded::Decoded};

use super::{
    audit::{self, Audit},
    roles::{self, Call, Caller, Peer, PermissionDenied, Revisions, Weight},
    throttle::{Budget, Place, Places, Rate, Share},
};

/// Memory for the documents of all requests of a role, in bytes: viewers, operators, admins. A policy
/// of a hundred thousand devices takes about 100 MiB. With what is sent and what is made of a
/// document, the daemon stays below a few gigabytes whatever it is sent.
const MEMORY: [u64; 3] = [256 << 20, 256 << 20, 512 << 20];

/// The state of the gate: limits, what each actor uses at present, and the audit.
#[derive(Debug)]
pub struct Keeper {
    audit: Audit,
    rate: Rate,
    calls: Places<String>,
    /// By role, so that clients that may only read can't keep those waiting that may act.
    heavy: [Places<String>; 3],
    /// Memory for the documents of requests, by role.
    memory: [Budget; 3],
    /// Changes in progress. Each is completed even if its client no longer waits.
    changes: TaskTracker,
    answered: Mutex<BTreeMap<(&'static str, String), u64>>,
}

impl Keeper {
    /// A gate without calls so far.
    pub fn new(audit: Audit) -> Self {
        Self {
            audit,
            // A script over a thousand devices passes at once; if it goes on at that rate it is
            // slowed.
            rate: Rate::new(2000, 200),
            calls: Places::new(4096, 128),
            heavy: std::array::from_fn(|_| Places::new(8, 4)),
            memory: MEMORY.map(Budget::new),
            changes: TaskTracker::new(),
            answered: Mutex::default(),
        }
    }

    /// How many calls had which status; for a stream, the status of its beginning.
    pub fn answered(&self) -> BTreeMap<(&'static str, String), u64> {
        let answered = self.answered.lock();
        answered.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Once a minute records the refused calls that were only counted; when the server has ended,
    /// waits for the changes that are still in progress.
    ///
    /// # Errors
    /// When a task of the audit can't be waited for.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) -> io::Result<()> {
        let mut minute = tokio::time::interval(Duration::from_secs(60));
        loop {
            let ends = tokio::select! {
                () = stop.cancelled() => true,
                _ = minute.tick() => false,
            };
            if ends {
                self.changes.close();
                self.changes.wait().await;
            }
            let audit = self.audit.clone();
            tokio::task::spawn_blocking(move || audit.record_refusals()).await?;
            if ends {
                return Ok(());
            }
        }
    }

    /// Reserves what a call needs, if the peer may make it.
    fn admit(&self, peer: &Peer, path: &str) -> Result<(&'static Call, Held), Status> {
        let call = match roles::authorise(path, peer.role) {
            Ok(call) => call,
            Err(denied @ PermissionDenied::Unknown) => {
                return Err(Status::unimplemented(denied.to_string()));
            }
            Err(denied @ (PermissionDenied::NoRole | PermissionDenied::Role { .. })) => {
                return Err(Status::permission_denied(format!(
                    "{} has {denied}",
                    peer.actor
                )));
            }
        };
        if let Err(wait) = self.rate.take(&peer.actor, call.weight.tokens()) {
            return Err(Status::resource_exhausted(format!(
                "{} calls too fast; again in {:.1} s",
                peer.actor,
                wait.as_secs_f64()
            )));
        }
        let many = || {
            Status::resource_exhausted(format!(
                "too many calls are open; {} must wait for some to end",
                peer.actor
            ))
        };
        let place = self.calls.take(&peer.actor).ok_or_else(many)?;
        let heavy = match (call.weight, peer.role) {
            (Weight::Heavy, Some(role)) => {
                let places = &self.heavy[role as usize];
                let place = places.take(&peer.actor).ok_or_else(many)?;
                Some((place, self.memory[role as usize].share()))
            }
            (Weight::Light, _) | (Weight::Heavy, None) => None,
        };
        Ok((call, Held(place, heavy)))
    }

    fn count(&self, call: &'static str, code: Code) {
        let answered = self.answered.lock();
        *answered
            .unwrap_or_else(PoisonError::into_inner)
            .entry((call, word(code)))
            .or_default() += 1;
    }

    /// Adds a record of a call and its answer to the audit.
    async fn note(&self, caller: Caller, call: String, status: &Status, revisions: Revisions) {
        let Peer {
            actor,
            role,
            address,
            ..
        } = caller.peer;
        let given = |revision: u64| (revisions.after != 0).then_some(revision);
        let record = Record {
            actor,
            address,
            role: role.map_or_else(String::new, |role| role.to_string()),
            call,
            reason: caller.reason.get().cloned().unwrap_or_default(),
            request_id: caller.request_id,
            outcome: word(status.code()),
            message: status.message().to_owned(),
            before: given(revisions.before),
            after: given(revisions.after),
            ..Record::default()
        };
        let audit = self.audit.clone();
        // Fails only when the runtime shuts down.
        let _ = tokio::task::spawn_blocking(move || audit.keep(record)).await;
    }
}

/// A status as the audit and the metrics write it.
pub fn word(code: Code) -> String {
    match code {
        Code::Ok => audit::OK.to_owned(),
        // `PermissionDenied`, as Rust spells it.
        other => format!("{other:?}")
            .chars()
            .flat_map(|c| {
                let gap = c.is_ascii_uppercase().then_some('_');
                gap.into_iter().chain([c.to_ascii_lowercase()])
            })
            .skip(1)
            .collect(),
    }
}

/// The gate in front of a server's services.
pub fn layer<S>(keeper: Arc<Keeper>) -> impl Layer<S, Service = Gate<S>> + Clone {
    tower::layer::layer_fn(move |inner| Gate {
        inner,
        keeper: keeper.clone(),
    })
}

/// A service behind the gate.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    inner: S,
    keeper: Arc<Keeper>,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone that was polled is the one that is ready.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        Box::pin(pass(self.keeper.clone(), inner, request))
    }
}

async fn pass<S>(
    keeper: Arc<Keeper>,
    mut inner: S,
    mut request: Request<Body>,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Ok(Status::unauthenticated("no peer identity on this connection").into_http());
    };
    let caller = Caller {
        peer,
        request_id: request_id(request.headers()),
        reason: Arc::new(OnceLock::new()),
    };
    let path = request.uri().path();
    let admitted = keeper.admit(&caller.peer, path).and_then(|(call, held)| {
        // A change that can't be recorded must not be made, unless it is an emergency.
        let ready = !call.changes
            || keeper.audit.ready().is_ok()
            || (call.urgent && keeper.audit.has_room());
        let status = "the audit can't be written, so nothing may change but quarantine and release; \
                      `wardctl status` says why";
        ready
            .then_some((call, held))
            .ok_or_else(|| Status::unavailable(status))
    });
    let (call, held) = match admitted {
        Ok(admitted) => admitted,
        Err(status) => {
            let call = roles::call(path).map_or("unknown", Call::name);
            let told = if call == "unknown" { path } else { call }.to_owned();
            keeper.count(call, status.code());
            keeper
                .note(caller, told, &status, Revisions::default())
                .await;
            return Ok(status.into_http());
        }
    };
    request.extensions_mut().insert(caller.clone());
    let id = HeaderValue::from_str(&caller.request_id).ok();
    let decoded = Decoded::of(request.uri().path()).zip(held.memory());
    let request = request.map(|body| Body::new(Bounded::new(body, call.weight, decoded)));
    let mut response = if call.changes {
        let changes = keeper.changes.clone();
        let keeper = keeper.clone();
        // The record must be written even if the client does not wait for the answer.
        let change = changes.spawn(async move {
            let response = inner.call(request).await?;
            let status = response.extensions().get::<Status>();
            let ok = Status::new(Code::Ok, "");
            let revisions = response.extensions().get().copied().unwrap_or_default();
            let name = call.name().to_owned();
            keeper
                .note(caller, name, status.unwrap_or(&ok), revisions)
                .await;
            Ok(response)
        });
        match change.await {
            Ok(response) => response?,
            Err(error) => Status::internal(format!("the call ended: {error}")).into_http(),
        }
    } else {
        inner.call(request).await?
    };
    let status = response.extensions().get::<Status>();
    keeper.count(call.name(), status.map_or(Code::Ok, Status::code));
    if let Some(id) = id {
        response.headers_mut().insert("x-request-id", id);
    }
    Ok(response.map(|body| Body::new(Answered { body, _held: held })))
}

/// The places that a call holds while it is open.
#[derive(Debug)]
struct Held(
    #[expect(dead_code, reason = "held until dropped")] Place<String>,
    Option<(Place<String>, Arc<Share>)>,
);

impl Held {
    /// The memory of a call that carries a document.
    fn memory(&self) -> Option<Arc<Share>> {
        let (_, share) = self.1.as_ref()?;
        Some(share.clone())
    }
}

/// An answer that releases its call's places once it has been sent.
struct Answered {
    body: Body,
    _held: Held,
}

impl http_body::Body for Answered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A request with a limit on its size and on the time for it to arrive.
struct Bounded {
    body: Body,
    left: usize,
    largest: usize,
    /// What the document takes once it is decoded, and where that is counted.
    decoded: Option<(Decoded, Arc<Share>)>,
    late: Pin<Box<Sleep>>,
}

impl Bounded {
    fn new(body: Body, weight: Weight, decoded: Option<(Decoded, Arc<Share>)>) -> Self {
        Self {
            decoded,
            body,
            left: weight.largest(),
            largest: weight.largest(),
            late: Box::pin(sleep(weight.patience())),
        }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.late.as_mut().poll(cx).is_ready() {
            let status = Status::deadline_exceeded("the request did not arrive in time");
            return Poll::Ready(Some(Err(status)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, |data| data.remaining());
            let Some(left) = self.left.checked_sub(length) else {
                let message = format!("the request has more than {} bytes", self.largest);
                return Poll::Ready(Some(Err(Status::resource_exhausted(message))));
            };
            self.left = left;
            if let (Some((decoded, share)), Some(data)) = (&mut self.decoded, frame.data_ref()) {
                let takes = decoded.walk(data);
                let takes = takes.map_err(|error| Status::invalid_argument(error.to_string()));
                if let Err(status) = takes.and_then(|takes| share.grow(takes)) {
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The client's id of a request if it is fit for a log, else a new unique one.
fn request_id(headers: &HeaderMap) -> String {
    const LONGEST: usize = 128;
    static MADE: AtomicU64 = AtomicU64::new(0);
    headers
        .get("x-request-id")
        .map(HeaderValue::as_bytes)
        .filter(|id| (1..=LONGEST).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic))
        .and_then(|id| String::from_utf8(id.to_vec()).ok())
        .unwrap_or_else(|| {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            format!("{:x}-{number:x}", Timestamp::now().as_nanosecond())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_clients_only_when_it_is_fit_to_print() {
        let made = |id: &'static [u8]| {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(id) {
                headers.insert("x-request-id", value);
            }
            request_id(&headers)
        };
        assert_eq!(made(b"ticket-17"), "ticket-17");
        for odd in [&b""[..], b"two words", b"\xc3\xa9", &[b'x'; 129]] {
            assert_ne!(made(odd).as_bytes(), odd);
        }
        assert_ne!(made(b""), made(b""));
    }

    #[test]
    fn a_status_is_written_as_grpc_names_it() {
        assert_eq!(word(Code::Ok), "ok");
        assert_eq!(word(Code::PermissionDenied), "permission_denied");
        assert_eq!(word(Code::NotFound), "not_found");
    }
}
