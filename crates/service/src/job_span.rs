//! The span around one attempt at a job: what the log shows of it, and what a trace shows beyond that.
//!
//! The names `gen_ai.*` are those of OpenTelemetry's semantic conventions for generative AI (in development, as of 2026),
//! which have no operation for pictures alone: `generate_content` with the output type `image` says it.

use pentimento_types::Job;
use tracing::Span;
use tracing::field::Empty;

use crate::Traces;

const OPERATION: &str = "generate_content";

/// Of this attempt. The child of the call that brought the job.
pub(crate) fn job_span(job: &Job, traces: Traces) -> Span {
    let model = job.recipe.model.as_str();
    let span = tracing::info_span!(
        "job",
        id = %job.id,
        request_id = job.origin.request_id,
        dialect = job.dialect.name,
        model,
        attempt = job.attempt,
        "otel.name" = Empty,
        "otel.status_code" = Empty,
        "error.type" = Empty,
        "gen_ai.operation.name" = Empty,
        "gen_ai.provider.name" = Empty,
        "gen_ai.request.model" = Empty,
        "gen_ai.request.seed" = Empty,
        "gen_ai.request.choice.count" = Empty,
        "gen_ai.output.type" = Empty,
        "pentimento.steps" = Empty,
        "pentimento.strength" = Empty,
    );
    if traces.are_exported() {
        span.record("otel.name", format!("{OPERATION} {model}"));
        span.record("gen_ai.operation.name", OPERATION);
        span.record("gen_ai.provider.name", "pentimento");
        span.record("gen_ai.request.model", model);
        span.record("gen_ai.request.seed", job.recipe.seed);
        span.record("gen_ai.request.choice.count", job.recipe.image_count);
        span.record("gen_ai.output.type", "image");
        span.record("pentimento.steps", job.recipe.steps);
        span.record("pentimento.strength", job.recipe.strength);
        traces.adopt(&span, job.origin.traceparent.as_deref());
    }
    span
}

/// The job has failed in this attempt.
pub(crate) fn note_failure(span: &Span, kind: &'static str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}
