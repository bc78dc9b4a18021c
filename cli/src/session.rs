//! One command's calls to the router: connects, asks, and stops waiting at the time-out.

use std::{future::Future, time::Duration};

use tokio::time;
use tonic::{Code, Request, Response, Status, Streaming};
use wardline_proto::document::Problem;

use crate::{
    args::Format,
    connect::{Client, connect},
    contexts::Target,
    exit::Failure,
};

/// The router, the format of answers, and how long they may take.
pub(crate) struct Session {
    pub(crate) target: Target,
    pub(crate) format: Format,
    pub(crate) limit: Duration,
    /// Whether the command changes something, which then may have happened without an answer.
    pub(crate) changes: bool,
}

impl Session {
    /// Sends one request on a new connection.
    ///
    /// # Errors
    /// The router can't be reached, refuses, or takes too long.
    pub(crate) async fn ask<Q, A>(
        &self,
        question: Q,
        call: impl AsyncFnOnce(Client, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        self.within(async {
            let client = connect(&self.target).await?;
            let answer = self.call(client, question, call).await;
            answer.map_err(|status| self.failed(&status, Problem::clone))
        })
        .await
    }

    /// Why a call failed. One that changes something and was not answered may have done so.
    pub(crate) fn failed(&self, status: &Status, placed: impl Fn(&Problem) -> Problem) -> Failure {
        let unanswered = matches!(
            status.code(),
            Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
        );
        let failure = Failure::of(status, placed);
        if unanswered && self.changes {
            failure.maybe_done()
        } else {
            failure
        }
    }

    /// Sends one request on an open connection; errors are the router's own status.
    ///
    /// # Errors
    /// The router's refusal.
    pub(crate) async fn call<Q, A>(
        &self,
        client: Client,
        question: Q,
        call: impl AsyncFnOnce(Client, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Status> {
        let mut request = Request::new(question);
        request.set_timeout(self.limit);
        call(client, request).await.map(Response::into_inner)
    }

    /// Opens a stream without an end; the time-out applies only to its beginning.
    ///
    /// # Errors
    /// The router can't be reached, refuses, or takes too long.
    pub(crate) async fn watch<Q, A>(
        &self,
        question: Q,
        call: impl AsyncFnOnce(Client, Request<Q>) -> Result<Response<Streaming<A>>, Status>,
    ) -> Result<Streaming<A>, Failure> {
        self.within(async {
            let client = connect(&self.target).await?;
            Ok(call(client, Request::new(question)).await?.into_inner())
        })
        .await
    }

    /// Waits for `answer` until the time-out.
    ///
    /// # Errors
    /// Those of `answer`, or the time-out.
    pub(crate) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let late = |_| {
            let late = Failure::failed(format!("no answer within {:?}", self.limit));
            if self.changes {
                late.maybe_done()
            } else {
                late
            }
        };
        time::timeout(self.limit, answer)
            .await
            .unwrap_or_else(|elapsed| Err(late(elapsed)))
    }
}
