//! Traces of attempts by OTLP, off unless they are asked for: one span an attempt, which goes on with the trace that the
//! record's `traceparent` header names (W3C Trace Context), as Debezium and applications write it.
//!
//! Spans are made here and nowhere else, and not from the log: what a library says of itself while it works (statements,
//! addresses, cells) is never exported. A span holds names, numbers and the event's id, and no key, cell or error text.
//!
//! Like the log there is one for the process. What cannot be exported is counted and dropped: nothing ever waits for it.

mod export;

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Link, Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span};

use crate::tally::Counter;

pub use self::export::Error;

/// Spans that came to an end, and what became of them: those that are neither exported nor failed wait, or were dropped
/// because too many did.
pub static SPANS: Counter = Counter::new("trace_spans", "Spans of attempts, by what became of them", &["state"]);

/// How long the last spans may take to be exported when the process ends.
const LAST_EXPORT_MAX: Duration = Duration::from_secs(3);

/// Links of one span; further events of the attempt have none.
const LINKS_MAX: usize = 16;

/// Where spans go.
pub struct Settings {
    /// Base address of the receiver; `/v1/traces` is added.
    pub endpoint: String,
    /// Headers of each request, for receivers that ask for a key.
    pub headers: Vec<(String, String)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// The share of traces that begin here and are exported, from 0 to 1. Of a trace that begins elsewhere it is decided there.
    pub sampled: f64,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Settings")
            .field("timeout", &self.timeout)
            .field("sampled", &self.sampled)
            .finish_non_exhaustive()
    }
}

struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

static TRACES: OnceLock<Traces> = OnceLock::new();

/// Begins to trace, for the whole process; needs a runtime, in which spans are sent. A second call changes nothing.
///
/// # Errors
/// When the settings make no client.
pub fn start(settings: Settings) -> Result<(), Error> {
    if TRACES.get().is_some() {
        return Ok(());
    }
    let sampled = settings.sampled;
    let exporter = export::exporter(settings)?;
    let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("afterwrite");
    }
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sampled))))
        .with_resource(resource.build())
        .with_span_processor(BatchSpanProcessor::builder(exporter).build())
        .build();
    let tracer = provider.tracer("afterwrite");
    drop(TRACES.set(Traces { provider, tracer }));
    Ok(())
}

/// Exports what is left, for a moment at most. Blocks; call it where that is allowed.
pub fn end() {
    if let Some(traces) = TRACES.get()
        && let Err(error) = traces.provider.shutdown_with_timeout(LAST_EXPORT_MAX)
    {
        tracing::debug!(%error, "the last spans were not exported");
    }
}

/// What is told of an attempt.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) group: &'a str,
    pub(crate) handler: &'a str,
    pub(crate) number: u32,
    pub(crate) is_replay: bool,
    /// Of the event that was first to come.
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) schema: &'a str,
    pub(crate) table: &'a str,
    pub(crate) event: Option<String>,
}

/// The headers of a record.
pub(crate) type Headers = [(String, Option<Bytes>)];

/// The span of an attempt. Dropped before it was ended it says that the attempt was abandoned, or panicked.
#[derive(Debug)]
pub(crate) struct AttemptSpan(Span);

/// Whether anything is traced: what is told of an attempt costs something to put together.
pub(crate) fn are_on() -> bool {
    TRACES.get().is_some()
}

/// Begins the span of an attempt at records with these headers; `None` while nothing is traced.
pub(crate) fn begin<'a>(attempt: &Attempt<'_>, records: impl Iterator<Item = &'a Headers>) -> Option<AttemptSpan> {
    let traces = TRACES.get()?;
    Some(AttemptSpan(span(&traces.tracer, attempt, records)))
}

fn span<'a>(tracer: &SdkTracer, attempt: &Attempt<'_>, records: impl Iterator<Item = &'a Headers>) -> Span {
    let propagator = TraceContextPropagator::new();
    let mut parents = records.map(|headers| propagator.extract_with_context(&Context::new(), &Carrier(headers)));
    let parent = parents.next().unwrap_or_default();
    let links: Vec<Link> = parents
        .filter(TraceContextExt::has_active_span)
        .take(LINKS_MAX)
        .map(|context| Link::with_context(context.span().span_context().clone()))
        .collect();
    let events = i64::try_from(links.len()).unwrap_or(i64::MAX);
    let mut attributes = vec![
        KeyValue::new("afterwrite.group", attempt.group.to_owned()),
        KeyValue::new("afterwrite.handler", attempt.handler.to_owned()),
        KeyValue::new("afterwrite.table", format!("{}.{}", attempt.schema, attempt.table)),
        KeyValue::new("afterwrite.attempt", i64::from(attempt.number)),
        KeyValue::new("afterwrite.replay", attempt.is_replay),
        KeyValue::new("afterwrite.links", events),
        KeyValue::new("messaging.destination.name", attempt.topic.to_owned()),
        KeyValue::new("messaging.destination.partition.id", attempt.partition.to_string()),
        KeyValue::new("messaging.kafka.offset", attempt.offset),
    ];
    attributes.extend(
        attempt
            .event
            .clone()
            .map(|event| KeyValue::new("afterwrite.event", event)),
    );
    SpanBuilder::from_name(format!("attempt {}", attempt.handler))
        .with_kind(SpanKind::Consumer)
        .with_attributes(attributes)
        .with_links(links)
        .start_with_context(tracer, &parent)
}

impl AttemptSpan {
    /// Ends it: with a word for how, and whether that is a failure.
    pub(crate) fn ended(mut self, outcome: &'static str, is_failure: bool) {
        self.close(outcome, is_failure);
    }

    fn close(&mut self, outcome: &'static str, is_failure: bool) {
        self.0.set_attribute(KeyValue::new("afterwrite.outcome", outcome));
        if is_failure {
            self.0.set_status(Status::error(outcome));
        }
        if self.0.is_recording() {
            SPANS.add(&["ended"], 1);
        }
        self.0.end();
    }
}

impl Drop for AttemptSpan {
    fn drop(&mut self) {
        if !self.0.is_recording() {
            return;
        }
        let outcome = if std::thread::panicking() {
            "panicked"
        } else {
            "abandoned"
        };
        self.close(outcome, true);
    }
}

/// A record's headers as a carrier of a trace's context. The last of one name counts.
struct Carrier<'a>(&'a Headers);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut named = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        let value = std::str::from_utf8(named.next_back()?.1.as_deref()?).ok()?;
        // Converters of JSON write texts in quotes.
        Some(value.trim().trim_matches('"'))
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn attempt() -> Attempt<'static> {
        Attempt {
            group: "afterwrite.email",
            handler: "email",
            number: 2,
            is_replay: false,
            topic: "waitlist.public.users",
            partition: 1,
            offset: 7,
            schema: "public",
            table: "users",
            event: Some("ab".repeat(16)),
        }
    }

    fn header(name: &str, value: &str) -> Vec<(String, Option<Bytes>)> {
        vec![(name.to_owned(), Some(Bytes::copy_from_slice(value.as_bytes())))]
    }

    /// What is exported of one attempt at records with these headers.
    fn traced(records: &[Vec<(String, Option<Bytes>)>], end: impl FnOnce(AttemptSpan)) -> SpanData {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let records = records.iter().map(Vec::as_slice);
        end(AttemptSpan(span(&provider.tracer("test"), &attempt(), records)));
        exporter.get_finished_spans().unwrap().remove(0)
    }

    fn outcome(span: &SpanData) -> String {
        let of = |attribute: &&KeyValue| attribute.key.as_str() == "afterwrite.outcome";
        span.attributes.iter().find(of).unwrap().value.to_string()
    }

    #[test]
    fn a_span_goes_on_with_the_trace_of_its_record() {
        let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
        for (name, value) in [
            ("traceparent", parent.clone()),
            ("Traceparent", format!("\"{parent}\"")),
        ] {
            let other = format!("00-{}-00f067aa0ba902b7-01", "4bf92f3577b34da6a3ce929d0e0e4736");
            let records = [header(name, &value), header("traceparent", &other), header("x", "y")];
            let span = traced(&records, |span| span.ended("done", false));
            assert_eq!(span.span_context.trace_id().to_string(), TRACE);
            assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
            assert_eq!(span.links.links.len(), 1, "the other record's trace is linked");
            assert_eq!((outcome(&span).as_str(), &span.status), ("done", &Status::Unset));
        }
    }

    #[test]
    fn a_header_that_is_none_begins_a_trace() {
        for value in ["", "00-zz", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"] {
            let span = traced(&[header("traceparent", value)], |span| span.ended("transient", true));
            assert_eq!(span.parent_span_id.to_string(), "0000000000000000", "{value}");
            assert_eq!(span.status, Status::error("transient"));
        }
    }

    #[test]
    fn a_span_that_nobody_ends_says_so() {
        let span = traced(&[], drop);
        assert_eq!(outcome(&span), "abandoned");
        let panicked = traced(&[], |span| {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _span = span;
                panic!("of a handler");
            }));
            assert!(caught.is_err());
        });
        assert_eq!(outcome(&panicked), "panicked");
    }
}
