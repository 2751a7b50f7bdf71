//! Spans sent to a collector over OTLP, where one is named; otherwise nothing is made of them.
//!
//! Sending has a thread of its own behind a bounded queue. Where the collector is away or slow, spans
//! are dropped; nobody waits for it.

use anyhow::bail;
use kulprit_common::trace_parent::TraceParent;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _,
};
use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Spans that may wait; an attempt makes some ten.
const QUEUE_MAX: usize = 4096;
const SEND_EVERY: Duration = Duration::from_secs(2);
/// How long a process that ends tries to get rid of the last spans.
const LAST_LIMIT: Duration = Duration::from_secs(2);

/// Names an endpoint, the first one that is set.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

static PROCESSOR: OnceLock<BatchSpanProcessor> = OnceLock::new();

/// Something that was done, with when.
#[derive(Clone, Debug)]
pub struct Span {
    pub at: TraceParent,
    /// Absent for the topmost span of a trace.
    pub parent: Option<TraceParent>,
    pub name: Cow<'static, str>,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<(&'static str, String)>,
    /// Why it did not come to a good end.
    pub failure: Option<String>,
}

/// Sends spans from now on, if the environment names an endpoint; needs the runtime around it.
pub fn start(program: &'static str, version: &str, instance: &str) -> anyhow::Result<()> {
    let Some((variable, endpoint)) = first_set(&ENDPOINTS) else { return Ok(()) };
    check(variable, &endpoint)?;
    if let Some((variable, protocol)) = first_set(&PROTOCOLS)
        && protocol != "grpc"
    {
        bail!("send traces by {variable}={protocol}: only grpc is spoken; leave it out");
    }
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(&endpoint).build();
    let exporter = match exporter {
        Ok(exporter) => Watched { exporter, failing: AtomicBool::new(false) },
        Err(error) => bail!("send traces to {variable}={endpoint}: {error}"),
    };
    let config =
        BatchConfigBuilder::default().with_max_queue_size(QUEUE_MAX).with_scheduled_delay(SEND_EVERY);
    let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build();
    let resource = Resource::builder().with_service_name(program).with_attributes([
        KeyValue::new("service.version", version.to_owned()),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ]);
    processor.set_resource(&resource.build());
    if PROCESSOR.set(processor).is_ok() {
        tracing::info!(endpoint, "sends traces");
    }
    Ok(())
}

fn first_set(variables: &[&'static str]) -> Option<(&'static str, String)> {
    let set = |name: &&'static str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    variables.iter().find_map(|name| Some((*name, set(name)?)))
}

fn check(variable: &str, endpoint: &str) -> anyhow::Result<()> {
    let uri: Result<axum::http::Uri, _> = endpoint.parse();
    match uri.as_ref().map(|uri| (uri.scheme_str(), uri.host())) {
        Ok((Some("http"), Some(_))) => Ok(()),
        Ok((Some("https"), _)) => bail!(
            "send traces to {variable}={endpoint}: TLS is not spoken with collectors; run one on this \
             machine, have it send on, and name it as http://127.0.0.1:4317"
        ),
        Ok(_) | Err(_) => bail!("send traces to {variable}={endpoint}: write http://HOST:PORT"),
    }
}

/// Whether anything is made of spans.
pub fn are_sent() -> bool {
    PROCESSOR.get().is_some()
}

/// Has a span sent, some time; never waits.
pub fn send(span: Span) {
    if let Some(processor) = PROCESSOR.get() {
        processor.on_end(data(span));
    }
}

/// Sends what is left, within moments, and nothing after that.
pub async fn finish() {
    let last = || PROCESSOR.get().map(|processor| processor.shutdown_with_timeout(LAST_LIMIT));
    // What could not be sent is lost, as it would be without a collector.
    let _ = tokio::time::timeout(LAST_LIMIT * 2, tokio::task::spawn_blocking(last)).await;
}

fn data(span: Span) -> SpanData {
    let context = SpanContext::new(
        TraceId::from_bytes(span.at.trace),
        SpanId::from_bytes(span.at.span),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    );
    SpanData {
        span_context: context,
        parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.span)),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: span.name,
        start_time: span.start,
        // A clock that was set back must not make a span of negative length.
        end_time: span.end.max(span.start),
        attributes: span.attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.failure.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("kulprit").build(),
    }
}

/// Says once when spans cannot be sent, and once when they can again.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    failing: AtomicBool,
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        match (&sent, self.failing.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => tracing::warn!(%error, "traces cannot be sent; spans are dropped"),
            (Ok(()), true) => tracing::info!("traces are sent again"),
            (Ok(()), false) | (Err(_), true) => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_cannot_be_are_refused_by_name() {
        for (endpoint, problem) in [
            ("https://collector:4317", "TLS is not spoken"),
            ("collector:4317", "write http://HOST:PORT"),
            ("http://", "write http://HOST:PORT"),
            ("a b", "write http://HOST:PORT"),
        ] {
            let error = check("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).expect_err(endpoint).to_string();
            assert!(error.contains(problem) && error.contains("OTEL_EXPORTER_OTLP_ENDPOINT="), "{error}");
        }
        assert!(check("X", "http://127.0.0.1:4317").is_ok());
    }

    #[test]
    fn a_span_keeps_its_names_and_never_ends_before_it_began() {
        let top = TraceParent::of(&"j".parse().expect("a name"), None);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        let made = data(Span {
            at: top.child("build"),
            parent: Some(top),
            name: "build".into(),
            start: at,
            end: SystemTime::UNIX_EPOCH,
            attributes: vec![("kulprit.slot", "0".into())],
            failure: Some("no disk".into()),
        });
        assert_eq!(made.span_context.trace_id().to_bytes(), top.trace);
        assert_eq!(made.parent_span_id.to_bytes(), top.span);
        assert_eq!((made.start_time, made.end_time), (at, at));
        assert_eq!(made.status, Status::error("no disk"));
    }
}
