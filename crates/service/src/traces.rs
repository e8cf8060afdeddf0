//! The join of our spans with the traces of other programs (W3C Trace Context), in a build that exports them.
//!
//! Nothing here or above knows OpenTelemetry; whoever exports hands in two functions. Without them spans are what the log
//! shows, and what only a trace would show is not even written into them.

use tracing::Span;

/// What an exporter can do with a span.
#[derive(Clone, Copy, Debug)]
pub struct TraceHooks {
    /// Makes it the child of the span that a `traceparent` names.
    pub adopt: fn(&Span, &str),
    /// Its own `traceparent`, for what goes on elsewhere.
    pub traceparent: fn(&Span) -> Option<String>,
}

/// Whether spans go to somebody who collects traces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traces(Option<TraceHooks>);

impl Traces {
    /// They do.
    #[must_use]
    pub const fn exported_by(hooks: TraceHooks) -> Self {
        Self(Some(hooks))
    }

    /// Whether they do.
    #[must_use]
    pub const fn are_exported(self) -> bool {
        self.0.is_some()
    }

    /// Makes a span the child of another program's, or of one of ours that has ended.
    pub fn adopt(self, span: &Span, traceparent: Option<&str>) {
        if let (Some(hooks), Some(traceparent)) = (self.0, traceparent) {
            (hooks.adopt)(span, traceparent);
        }
    }

    /// What a later span has to be given to become a child of this one.
    #[must_use]
    pub fn traceparent(self, span: &Span) -> Option<String> {
        self.0.and_then(|hooks| (hooks.traceparent)(span))
    }
}
