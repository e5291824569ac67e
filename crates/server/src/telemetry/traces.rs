//! Traces for OpenTelemetry: one span for each sampled call. Off by default.
//!
//! **Invariants**: the sampling decision comes before anything is allocated for a span. No response
//! waits for the collector: the exporter's queue is bounded, and beyond the bound spans are lost. A
//! span holds the method, the gRPC code, and of a decision its result, reason and revision. It
//! never holds identities, capabilities or resources.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use capstan_engine::Decision;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData,
};
use opentelemetry_sdk::{Resource, trace::SpanExporter as Exporter};
use tonic::Code;
use tonic::codegen::http::{HeaderMap, Uri};
use tonic::transport::Endpoint;

use crate::limits::{
    EXPORT_CONNECT_TIMEOUT, EXPORT_TIMEOUT, SPANS_FLUSH_MAX, SPANS_MAX, TRACE_HEADER_BYTES_MAX,
};

/// Where spans are exported, and how many calls are sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// `http://HOST:PORT` of a collector that speaks OTLP over gRPC.
    pub endpoint: String,
    /// The sampled share of calls, from 0 to 1.
    pub sample_ratio: f64,
    /// Whether a caller's `traceparent` decides if its calls are sampled. Only for trusted callers:
    /// each span has a cost, and a caller could have all or none of its calls sampled.
    pub parent_based: bool,
}

impl Export {
    /// The endpoint, if it is one.
    ///
    /// # Errors
    ///
    /// It is not `http://HOST:PORT`.
    pub(crate) fn check(&self) -> anyhow::Result<Endpoint> {
        let endpoint = &self.endpoint;
        let uri = endpoint.parse::<Uri>().ok();
        let is_http = uri.is_some_and(|uri| uri.scheme_str() == Some("http"));
        ensure!(is_http, "cannot export traces to {endpoint}: expected http://HOST:PORT");
        Endpoint::from_shared(endpoint.clone())
            .with_context(|| format!("cannot export traces to {endpoint}"))
    }
}

/// Starts spans, and owns the exporter.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    sample_ratio: f64,
    parent_based: bool,
}

impl Traces {
    /// Prepares the exporter. The collector may start later. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The endpoint is not `http://HOST:PORT`.
    pub(crate) fn open(export: &Export) -> anyhow::Result<Self> {
        let channel = export
            .check()?
            .connect_timeout(EXPORT_CONNECT_TIMEOUT)
            .timeout(EXPORT_TIMEOUT)
            .connect_lazy();
        let exporter = SpanExporter::builder().with_tonic().with_channel(channel);
        let exporter = exporter.with_timeout(EXPORT_TIMEOUT).build()?;
        let exporter = LoggedExporter { exporter, failing: AtomicBool::new(false) };
        Ok(Self::new(exporter, export.sample_ratio, export.parent_based))
    }

    fn new(exporter: impl Exporter + 'static, sample_ratio: f64, parent_based: bool) -> Self {
        let config = BatchConfigBuilder::default().with_max_queue_size(SPANS_MAX).build();
        let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "capstan".into());
        let resource = Resource::builder()
            .with_service_name(name)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            // A call that is not sampled gets no span at all.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .with_span_processor(
                BatchSpanProcessor::builder(exporter).with_batch_config(config).build(),
            )
            .build();
        let tracer = provider.tracer("capstan");
        Self { provider, tracer, sample_ratio, parent_based }
    }

    /// Starts the span of a call, if the call is sampled. `chance` is a random number that decides
    /// with the sampling ratio; if `parent_based` is set, the caller's trace context decides
    /// instead. Either way the span joins the caller's trace.
    pub(crate) fn begin(&self, path: &str, headers: &HeaderMap, chance: u64) -> Option<CallSpan> {
        let mut parent = Context::new();
        if headers.contains_key("traceparent") {
            let propagator = TraceContextPropagator::new();
            parent = propagator.extract_with_context(&parent, &TraceHeaders(headers));
        }
        let sampled = match parent.span().span_context() {
            context if self.parent_based && context.is_valid() => context.is_sampled(),
            _ => {
                let chance = u32::try_from(chance >> 32).unwrap_or(u32::MAX);
                f64::from(chance) / (f64::from(u32::MAX) + 1.0) < self.sample_ratio
            }
        };
        if !sampled {
            return None;
        }
        let name = path.trim_start_matches('/');
        let (service, method) = name.split_once('/')?;
        let builder = self.tracer.span_builder(name.to_owned());
        let builder = builder.with_kind(SpanKind::Server).with_attributes([
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", method.to_owned()),
        ]);
        let span = self.tracer.build_with_context(builder, &parent);
        Some(CallSpan(Arc::new(Mutex::new(span))))
    }

    /// Exports the queued spans, within [`SPANS_FLUSH_MAX`].
    pub(crate) async fn finish(&self) {
        let provider = self.provider.clone();
        let (done, finished) = tokio::sync::oneshot::channel();
        // The shutdown blocks. On a thread of the runtime, the runtime would wait for it at its own
        // end.
        let finishing = std::thread::Builder::new().name("traces".into()).spawn(move || {
            let _ = done.send(provider.shutdown_with_timeout(SPANS_FLUSH_MAX).is_ok());
        });
        let finished = tokio::time::timeout(SPANS_FLUSH_MAX, finished).await;
        if finishing.is_err() || !matches!(finished, Ok(Ok(true))) {
            tracing::warn!("the last spans were not exported");
        }
    }
}

/// Whether a call is sampled, among the extensions of a request for which that was drawn already.
#[derive(Clone, Debug)]
pub(crate) struct Sampled(pub(crate) Option<CallSpan>);

/// The span of one call.
#[derive(Clone, Debug)]
pub(crate) struct CallSpan(Arc<Mutex<Span>>);

impl CallSpan {
    fn lock(&self) -> std::sync::MutexGuard<'_, Span> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the decision.
    pub(crate) fn decided(&self, decision: Decision, revision: u64) {
        self.lock().set_attributes([
            KeyValue::new("capstan.allowed", decision.allowed()),
            KeyValue::new("capstan.reason", decision.reason.as_str()),
            KeyValue::new("capstan.revision", i64::try_from(revision).unwrap_or(i64::MAX)),
        ]);
    }

    /// Ends the span.
    pub(crate) fn ended(&self, code: Code) {
        let mut span = self.lock();
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(i32::from(code))));
        // The codes that are errors of a server; errors of callers do not mark the span.
        if matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ) {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// The trace context headers of a request.
struct TraceHeaders<'a>(&'a HeaderMap);

impl Extractor for TraceHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?.to_str().ok()?;
        (value.len() <= TRACE_HEADER_BYTES_MAX).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

/// Wraps the exporter, and logs when exports begin to fail and when they succeed again.
struct LoggedExporter {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl fmt::Debug for LoggedExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exporter.fmt(f)
    }
}

impl Exporter for LoggedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        let failing = exported.is_err();
        match (&exported, self.failing.swap(failing, Relaxed)) {
            (Err(error), false) => {
                tracing::error!("spans are lost, they cannot be exported: {error}")
            }
            (Ok(()), true) => tracing::info!("spans are exported again"),
            _ => {}
        }
        exported
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
mod tests;
