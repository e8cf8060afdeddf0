//! Spans on their way to a collector of traces, as OTLP over HTTP.
//!
//! Only this file knows OpenTelemetry. Spans wait in a bounded queue for one thread that sends them; a collector that does
//! not answer costs spans and nothing else. Headers, attributes and the sampler are said by the usual variables `OTEL_*`,
//! which the library reads.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use pentimento_service::{TraceHooks, Traces};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use url::Url;

const NAME: &str = "pentimento";
/// The path of the protocol, below an endpoint for all signals.
const TRACES: &str = "v1/traces";
/// How long the end of the process waits for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(3);
const TRACEPARENT: &str = "traceparent";

/// Sends what the spans were. What still waits is sent when this goes out of scope.
#[derive(Debug)]
pub(super) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// To the collector at this address. Must not be called from async code.
    pub(super) fn start(endpoint: &Url) -> anyhow::Result<Self> {
        let address = format!("{}/{TRACES}", endpoint.as_str().trim_end_matches('/'));
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(address)
            .build()?;
        let resource = Resource::builder()
            .with_service_name(NAME)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter);
        Ok(Self(provider.build()))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(%error, "the last spans were not taken");
        }
    }
}

/// Makes the log that of the process, with the exporter beside it.
pub(super) fn install<S>(log: S, exporter: Option<&Exporter>)
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync + 'static,
{
    let layer = exporter.map(|exporter| tracing_opentelemetry::layer().with_tracer(exporter.0.tracer(NAME)));
    log.with(layer).init();
}

/// How our spans are joined with those of others.
pub(super) fn traces() -> Traces {
    Traces::exported_by(TraceHooks { adopt, traceparent })
}

fn adopt(span: &Span, traceparent: &str) {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    // A span that the filter has left out has no place in a trace.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
}

fn traceparent(span: &Span) -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    /// Takes one call, and gives its head and its body.
    fn collector() -> (Url, mpsc::Receiver<(String, Vec<u8>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sender, calls) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            let mut piece = [0; 4096];
            loop {
                let count = stream.read(&mut piece).unwrap();
                bytes.extend_from_slice(&piece[..count]);
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                    continue;
                };
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.unwrap().trim().parse().unwrap();
                if bytes.len() >= end + 4 + length {
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        .unwrap();
                    sender.send((head, bytes[end + 4..].to_vec())).unwrap();
                    return;
                }
            }
        });
        (address.parse().unwrap(), calls)
    }

    #[test]
    fn a_span_reaches_its_collector_as_a_part_of_its_callers_trace() {
        const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        // As `main` does first of all; the client needs it for plain HTTP too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (address, calls) = collector();
        let exporter = Exporter::start(&address).unwrap();
        let layer = tracing_opentelemetry::layer().with_tracer(exporter.0.tracer(NAME));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("job", "otel.name" = "generate_content demo");
            adopt(&span, CALLER);
            let own = traceparent(&span).unwrap();
            assert_eq!(&own[..36], &CALLER[..36], "the same trace");
            assert_ne!(&own[36..52], &CALLER[36..52], "another span");
        });
        drop(exporter);
        let (head, body) = calls.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(head.starts_with("post /v1/traces "), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        let has = |wanted: &[u8]| body.windows(wanted.len()).any(|found| found == wanted);
        assert!(has(b"generate_content demo") && has(b"service.name") && has(NAME.as_bytes()));
        let trace = u128::from_str_radix(&CALLER[3..35], 16).unwrap().to_be_bytes();
        let parent = u64::from_str_radix(&CALLER[36..52], 16).unwrap().to_be_bytes();
        assert!(has(&trace) && has(&parent), "the caller's ids");
    }
}
