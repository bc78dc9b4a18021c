//! Metrics: counters and gauges of this moment, as OpenMetrics text over HTTP.
//!
//! Only `GET /metrics` is served. It returns no secrets and changes nothing, so it needs no
//! certificate; it listens on loopback unless configured otherwise. Counters by rule are left out,
//! because there can be a hundred thousand of them; the API has them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use wardline_ebpf::abi::{Reason, gauge};
use wardline_proto::v1;

use super::view::View;
use crate::{
    access::{gate::Keeper, tls::Certificates},
    parts::Part,
};

/// How long a client may take to send its request, and then for the whole connection.
const QUESTION: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);
/// Most clients at a time.
const MOST: usize = 16;
/// How old an answer may be, so that a client that asks all the time does not keep a processor
/// busy.
const FRESH: Duration = Duration::from_secs(1);

/// The sources of the metrics.
pub struct Metrics {
    /// The state in force, and the kernel's counters.
    pub view: View,
    /// Counts the calls.
    pub keeper: Arc<Keeper>,
    /// Tells when the router's certificate expires.
    pub certificates: Arc<OnceLock<Certificates>>,
}

/// Serves metrics until told to stop. The address is tried until it can be used.
pub async fn serve(metrics: Metrics, address: SocketAddr, stop: CancellationToken) {
    let bind = || async {
        let listener = TcpListener::bind(address).await;
        listener.map_err(|error| format!("metrics.listen {address}: {error}"))
    };
    let parts = metrics.view.parts.clone();
    let Some(listener) = parts.insist(Part::Metrics, &stop, bind).await else {
        return;
    };
    let page = Arc::new(Page {
        metrics,
        last: Mutex::default(),
    });
    let mut stopped = pin!(stop.cancelled());
    // All clients are dropped when this function ends.
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut stopped => return,
            Some(_) = clients.join_next() => {}
            accepted = listener.accept(), if clients.len() < MOST => match accepted {
                Ok((stream, _)) => drop(clients.spawn(timeout(PATIENCE, answer(stream, page.clone())))),
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

async fn answer(stream: TcpStream, page: Arc<Page>) {
    let service = service_fn(move |request| {
        let page = page.clone();
        async move { Ok::<_, Infallible>(page.turn_to(&request).await) }
    });
    // An error only means that the client has disconnected.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(QUESTION)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

struct Page {
    metrics: Metrics,
    last: Mutex<Option<(Instant, String)>>,
}

impl Page {
    async fn turn_to(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match (request.method(), request.uri().path()) {
            (&(Method::GET | Method::HEAD), "/metrics") => match self.text().await {
                Some(text) => (StatusCode::OK, text),
                None => (StatusCode::SERVICE_UNAVAILABLE, "no numbers\n".to_owned()),
            },
            (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
            _ => (StatusCode::NOT_FOUND, "only /metrics\n".to_owned()),
        };
        let kind = match status {
            StatusCode::OK => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            _ => "text/plain; charset=utf-8",
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
        response
    }

    async fn text(&self) -> Option<String> {
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(text.clone());
        }
        let text = self.metrics.text().await?;
        *last = Some((Instant::now(), text.clone()));
        Some(text)
    }
}

type Labels = Vec<(&'static str, String)>;

impl Metrics {
    async fn text(&self) -> Option<String> {
        let numbers = self.view.read(|view| {
            let reasons = view.reader.reasons()?;
            let lost = view.reader.gauge(gauge::LOST_EVENTS)?;
            Ok((view.status()?, view.absent_ports(), reasons, lost))
        });
        let (status, absent, reasons, lost) = match numbers.await {
            Ok(numbers) => numbers,
            Err(error) => {
                warn!(error = error.message(), "no numbers for metrics");
                return None;
            }
        };
        let mut registry = Registry::with_prefix("wardline");
        let mut gauges = |name: &str, help: &str, values: Vec<(Labels, i64)>| {
            if let [(labels, value)] = values.as_slice()
                && labels.is_empty()
            {
                let gauge = Gauge::<i64>::default();
                gauge.set(*value);
                return registry.register(name, help, gauge);
            }
            let family = Family::<Labels, Gauge>::default();
            for (labels, value) in values {
                family.get_or_create(&labels).set(value);
            }
            registry.register(name, help, family);
        };
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let about = vec![("router", status.router), ("version", status.version)];
        gauges("router", "The router and its version", vec![(about, 1)]);
        gauges(
            "revision",
            "The revision in force",
            vec![(Vec::new(), number(status.revision))],
        );
        let port = |interface: String, zone: String, guarded: bool| {
            let labels = vec![("interface", interface), ("zone", zone)];
            (labels, i64::from(guarded))
        };
        let there = status.ports.into_iter().map(|it| {
            let guarded = it.attached() != v1::Attached::None;
            port(it.interface, it.zone, guarded)
        });
        let absent = absent.into_iter();
        let absent = absent.map(|(pattern, zone)| port(pattern, zone, false));
        gauges(
            "port_guarded",
            "Whether the port's hooks are attached; 0 also for a port that no interface has",
            there.chain(absent).collect(),
        );
        gauges(
            "clock_believed",
            "Whether nothing speaks against the wall clock, by which rules and grants end",
            vec![(Vec::new(), i64::from(status.clock_doubt.is_empty()))],
        );
        let broken = self.view.parts.broken();
        let part = |part: Part| {
            let labels = vec![("part", part.to_string())];
            (labels, i64::from(!broken.contains_key(&part)))
        };
        gauges(
            "part_works",
            "Whether a part of the daemon works; status says what is wrong",
            Part::ALL.map(part).into(),
        );
        let tables = |of: fn(&v1::TableStatus) -> u64| {
            let entry =
                |table: &v1::TableStatus| (vec![("table", table.name.clone())], number(of(table)));
            status.tables.iter().map(entry).collect()
        };
        gauges("table_used", "Entries in use", tables(|table| table.used));
        gauges(
            "table_size",
            "Entries that the table can hold",
            tables(|table| table.max),
        );
        let fill = self.view.events.journal().fill();
        for (name, help, value) in [
            ("journal_events", "Events in the journal", fill.events),
            ("journal_size", "Bytes of the journal", fill.bytes),
        ] {
            gauges(name, help, vec![(Vec::new(), number(value))]);
        }
        let mut counters = |name: &str, help: &str, unit, values: Vec<(Labels, u64)>| {
            let family = Family::<Labels, Counter>::default();
            for (labels, value) in values {
                family.get_or_create(&labels).inc_by(value);
            }
            match unit {
                Some(unit) => registry.register_with_unit(name, help, unit, family),
                None => registry.register(name, help, family),
            }
        };
        let by_reason = |of: fn(&wardline_ebpf::abi::Counter) -> u64| {
            let entry = |(reason, counter)| {
                (
                    vec![("reason", word(reason)), ("verdict", verdict(reason))],
                    of(counter),
                )
            };
            reasons
                .iter()
                .map(|(reason, counter)| entry((*reason, counter)))
                .collect()
        };
        counters(
            "packets",
            "Packets judged",
            None,
            by_reason(|counter| counter.packets),
        );
        counters(
            "frames",
            "Bytes judged, whole frames",
            Some(Unit::Bytes),
            by_reason(|counter| counter.bytes),
        );
        let calls = self.keeper.answered().into_iter();
        let calls = calls.map(|((call, outcome), count)| {
            (vec![("call", call.to_owned()), ("outcome", outcome)], count)
        });
        counters(
            "calls",
            "Calls of the API, by their outcome",
            None,
            calls.collect(),
        );
        let events = Counter::<u64>::default();
        events.inc_by(u64::from(lost));
        let help = "Events that the kernel could not hand over";
        registry.register("events_lost", help, events);
        let unwritten = Counter::<u64>::default();
        unwritten.inc_by(self.view.events.journal().lost());
        let help = "Events that are not in the journal: it could not be written in time";
        registry.register("journal_events_lost", help, unwritten);
        if let Some(certificates) = self.certificates.get() {
            let left = Gauge::<i64>::default();
            left.set(certificates.end().as_second() - Timestamp::now().as_second());
            registry.register_with_unit(
                "certificate_left",
                "Until the API's certificate ends",
                Unit::Seconds,
                left,
            );
        }
        let mut text = String::new();
        encode(&mut text, &registry).ok()?;
        Some(text)
    }
}

/// A reason's name in the API.
fn word(reason: Reason) -> String {
    v1::Reason::try_from(i32::from(reason as u8)).map_or_else(
        |_| String::new(),
        |reason| {
            reason
                .as_str_name()
                .trim_start_matches("REASON_")
                .to_ascii_lowercase()
        },
    )
}

fn verdict(reason: Reason) -> String {
    if reason.passes() { "pass" } else { "drop" }.to_owned()
}
