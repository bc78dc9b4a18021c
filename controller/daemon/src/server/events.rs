//! The events that a client asks for: those of the journal, then those that follow.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{broadcast, broadcast::error::RecvError, mpsc},
    task::spawn_blocking,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};
use wardline_ebpf::abi::Reason;
use wardline_policy::{document::Document, words::problem::Problem};
use wardline_proto::{time::from_proto, v1};

use super::{
    calls::{Answer, Many, violations},
    view::View,
};
use crate::telemetry::{
    event::{Event, Verdict},
    filter::{Asked, Filter, Who},
    journal::{Order, Page},
};

/// Events that come when neither a number nor a moment is named.
const SOME: usize = 10_000;
/// Events of one read of the journal.
const PAGE: usize = 1000;
/// Most values of one condition.
const MOST_VALUES: usize = 100;

impl View {
    /// Streams the events that a request asks for.
    ///
    /// # Errors
    ///
    /// The problems of the request.
    pub(super) async fn watch(&self, request: v1::WatchEventsRequest) -> Answer<Many<v1::Event>> {
        let policy = self.state().snapshot.policy.clone();
        let filter = filter(&request, &policy).map_err(refused)?;
        // Before the journal is asked, so that nothing falls between it and what follows.
        let (last, next) = self.events.follow();
        let most = match (request.limit, filter.since) {
            (0, Some(_)) => None,
            (0, None) => Some(SOME),
            (limit, _) => Some(limit as usize),
        };
        let (send, receive) = mpsc::channel(256);
        let (view, follows) = (self.clone(), request.follow && filter.until.is_none());
        tokio::spawn(async move {
            // Without a stream nothing comes twice, whatever the clock was set to.
            let last = if follows { last } else { i64::MAX };
            let sent = view.send_kept(&filter, last, most, &send).await;
            if sent.is_some() && follows {
                follow(&filter, next, &send).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    /// The newest events in the journal that pass a filter, oldest first; where it can't be read, those in
    /// memory.
    ///
    /// # Errors
    ///
    /// When the journal can't be read.
    pub(super) async fn newest(&self, filter: &Filter, most: usize) -> Result<Vec<Event>, Status> {
        if !self.events.journal().is_up_to_date().await {
            let kept = self.events.kept(filter);
            let newest = kept.iter().skip(kept.len().saturating_sub(most));
            return Ok(newest.map(|event| Event::clone(event)).collect());
        }
        let page = Page {
            after: i64::MIN,
            through: i64::MAX,
            most,
            order: Order::Newest,
        };
        self.read_journal(filter, page).await
    }

    /// Sends the kept events up to number `last`; none: the client has left, or was told of an error.
    async fn send_kept(
        &self,
        filter: &Filter,
        last: i64,
        most: Option<usize>,
        to: &Told,
    ) -> Option<()> {
        if !self.events.journal().is_up_to_date().await {
            let kept = self.events.kept(filter);
            let most = most.unwrap_or(usize::MAX);
            for event in kept.iter().skip(kept.len().saturating_sub(most)) {
                if event.id <= last {
                    to.send(Ok(v1::Event::from(&**event))).await.ok()?;
                }
            }
            return Some(());
        }
        let mut page = Page {
            after: i64::MIN,
            through: last,
            most: most.unwrap_or(PAGE),
            order: match most {
                Some(_) => Order::Newest,
                None => Order::Oldest,
            },
        };
        loop {
            let events = match self.read_journal(filter, page).await {
                Ok(events) => events,
                Err(status) => {
                    let _ = to.send(Err(status)).await;
                    return None;
                }
            };
            for event in &events {
                to.send(Ok(v1::Event::from(event))).await.ok()?;
            }
            match events.last() {
                Some(newest) if most.is_none() && events.len() == PAGE => page.after = newest.id,
                _ => return Some(()),
            }
        }
    }

    async fn read_journal(&self, filter: &Filter, page: Page) -> Result<Vec<Event>, Status> {
        let place = self.journals.place().await?;
        let (journal, filter) = (self.events.journal().clone(), filter.clone());
        let read = spawn_blocking(move || {
            let read = journal.page(&filter, page);
            drop(place);
            read
        });
        let read = read
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        read.map_err(|error| Status::unavailable(format!("the journal can't be read: {error}")))
    }
}

type Told = mpsc::Sender<Result<v1::Event, Status>>;

/// Sends what follows, until the client leaves or reads too slowly.
async fn follow(filter: &Filter, mut next: broadcast::Receiver<Arc<Event>>, to: &Told) {
    loop {
        let event = tokio::select! {
            () = to.closed() => return,
            event = next.recv() => match event {
                Ok(event) if filter.passes(&event) => Ok(v1::Event::from(&*event)),
                Ok(_) => continue,
                // A client that reads too slowly gets an error, so that it knows of the gap.
                Err(RecvError::Lagged(lost)) => Err(Status::data_loss(format!(
                    "{lost} events came faster than read"
                ))),
                Err(RecvError::Closed) => return,
            },
        };
        let ends = event.is_err();
        if to.send(event).await.is_err() || ends {
            return;
        }
    }
}

fn refused(problems: Vec<Problem>) -> Status {
    let message = problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ");
    violations(Code::InvalidArgument, message, problems)
}

/// The filter of a request.
fn filter(request: &v1::WatchEventsRequest, policy: &Document) -> Result<Filter, Vec<Problem>> {
    let mut problems = Vec::new();
    let ago = match request.since_s {
        0 => None,
        seconds => {
            let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Timestamp::now().checked_sub(ago).ok()
        }
    };
    let since = request.since.as_ref().and_then(from_proto);
    let lists = [
        ("devices", request.devices.len()),
        ("zones", request.zones.len()),
        ("reasons", request.reasons.len()),
        ("rules", request.rules.len()),
        ("services", request.services.len()),
        ("peers", request.peers.len()),
        ("interfaces", request.interfaces.len()),
        ("verdicts", request.verdicts.len()),
    ];
    for (name, count) in lists.into_iter().filter(|(_, count)| *count > MOST_VALUES) {
        problems.push(Problem {
            path: name.to_owned(),
            message: format!("has {count} values; at most {MOST_VALUES}"),
        });
    }
    let mut services = Vec::new();
    for (at, text) in request.services.iter().enumerate() {
        match Asked::of(text, policy) {
            Ok(asked) => services.push(asked),
            Err(message) => problems.push(Problem {
                path: format!("services[{at}]"),
                message,
            }),
        }
    }
    let mut reasons = Vec::new();
    for (at, number) in request.reasons.iter().enumerate() {
        match u8::try_from(*number).ok().and_then(Reason::from_number) {
            Some(reason) => reasons.push(reason),
            None => problems.push(Problem {
                path: format!("reasons[{at}]"),
                message: "is no reason".to_owned(),
            }),
        }
    }
    let verdicts = request.verdicts().map(|verdict| match verdict {
        v1::Verdict::Pass => Verdict::Pass,
        v1::Verdict::Drop => Verdict::Drop,
        v1::Verdict::None | v1::Verdict::Unspecified => Verdict::None,
    });
    let filter = Filter {
        since: since.max(ago),
        until: request.until.as_ref().and_then(from_proto),
        devices: request.devices.iter().map(|it| Who::of(it)).collect(),
        zones: request.zones.clone(),
        reasons,
        rules: request.rules.clone(),
        services,
        peers: request.peers.iter().map(|it| Who::of(it)).collect(),
        interfaces: request.interfaces.clone(),
        verdicts: verdicts.collect(),
    };
    if problems.is_empty() {
        Ok(filter)
    } else {
        Err(problems)
    }
}
