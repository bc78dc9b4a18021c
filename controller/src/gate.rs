//! What every request passes before a handler sees it: who calls, and whether they may.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Request, Response};
use jiff::Timestamp;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::roles::{self, Caller, Denied, Peer};

/// What a change has made of which revision; its answer has them as an extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revisions {
    /// In force before.
    pub before: u64,
    /// In force after.
    pub after: u64,
}

/// The gate in front of a server's services.
pub fn layer<S>() -> impl Layer<S, Service = Gate<S>> + Clone {
    tower::layer::layer_fn(|inner| Gate { inner })
}

/// A service that only those reach who may.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    inner: S,
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that was polled is the one that is ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let caller = match enter(&request) {
                Ok(caller) => caller,
                Err(status) => return Ok(status.into_http()),
            };
            request.extensions_mut().insert(caller);
            inner.call(request).await
        })
    }
}

/// Who calls, if they may.
fn enter(request: &Request<Body>) -> Result<Caller, Status> {
    let Some(Some(peer)) = request.extensions().get::<Option<Peer>>() else {
        return Err(Status::unauthenticated("the kernel does not say who calls"));
    };
    let told = |denied: &Denied| format!("{} has {denied}", peer.actor);
    match roles::authorise(request.uri().path(), peer.role) {
        Ok(_) => Ok(Caller {
            peer: peer.clone(),
            request_id: request_id(request.headers()),
            reason: Arc::new(OnceLock::new()),
        }),
        Err(denied @ Denied::Unknown) => Err(Status::unimplemented(denied.to_string())),
        Err(denied @ (Denied::NoRole | Denied::Role { .. })) => {
            Err(Status::permission_denied(told(&denied)))
        }
    }
}

/// The client's id of a request when it can stand in a log, else one that nothing else has.
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
}
