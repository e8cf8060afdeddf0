//! Which shape the errors of a path have, for everything that answers before or around the handlers.

use crate::admin;
use crate::dialects::{a1111, modelslab, novita, openai};
use crate::edge_fault::EdgeFault;
use crate::failure::Failure;

/// Whose words the errors of a path are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `/v1`, `/files`, `/playground`, `/openapi` and the paths at the root.
    Own,
    /// `/v1/images`.
    OpenAi,
    /// Whatever is below `/api`, and `/v1/enterprise` and `/v6` for base addresses without it.
    ModelsLab,
    /// `/sdapi`.
    A1111,
    /// `/v2`, `/v3`, and whatever else a vendor's client may come up with.
    Novita,
}

impl Shape {
    /// The shape for a path; unknown paths are the dialect's, because mistaken base addresses come from its clients.
    pub(crate) fn of(path: &str) -> Self {
        let own = [
            "/v1",
            "/files",
            "/mcp",
            "/playground",
            "/docs",
            "/openapi",
            "/openapi.json",
            "/healthz",
            "/readyz",
            "/metrics",
        ];
        let under = |root: &&str| {
            path.strip_prefix(*root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let modelslab = ["/api", "/v1/enterprise", "/v6"];
        if modelslab.iter().any(under) {
            Self::ModelsLab
        } else if under(&"/v1/images") {
            Self::OpenAi
        } else if under(&"/sdapi") {
            Self::A1111
        } else if path == "/" || own.iter().any(under) {
            Self::Own
        } else {
            Self::Novita
        }
    }

    /// The fault in this shape.
    pub(crate) fn failure(self, fault: EdgeFault) -> Failure {
        match self {
            Self::Own => admin::edge_failure(fault),
            Self::ModelsLab => modelslab::edge_failure(fault),
            Self::OpenAi => openai::edge_failure(fault),
            Self::A1111 => a1111::edge_failure(fault),
            Self::Novita => novita::edge_failure(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pentimento_service::{RateBucket, RateExceeded};
    use pentimento_types::HasKind as _;

    use super::*;
    use crate::body::BodyError;

    #[test]
    fn paths_have_the_shape_of_their_owner() {
        for path in [
            "/",
            "/v1",
            "/v1/models",
            "/files/a/b",
            "/playground/x",
            "/healthz",
            "/readyz",
        ] {
            assert_eq!(Shape::of(path), Shape::Own, "{path}");
        }
        for path in [
            "/api/v1/enterprise/img2img",
            "/api/v6",
            "/api/v3/img2img",
            "/api/v4/dreambooth",
            "/api/v5/nothing",
            "/v1/enterprise",
            "/v6/images",
        ] {
            assert_eq!(Shape::of(path), Shape::ModelsLab, "{path}");
        }
        for path in ["/v1/images/edits", "/v1/images", "/v1/images/x/y"] {
            assert_eq!(Shape::of(path), Shape::OpenAi, "{path}");
        }
        for path in ["/sdapi/v1/img2img", "/sdapi/v1/nothing", "/sdapi"] {
            assert_eq!(Shape::of(path), Shape::A1111, "{path}");
        }
        for path in [
            "/v3/lcm-img2img",
            "/v3",
            "/v2/models",
            "/x",
            "/v10",
            "/filesystem",
            "/apis",
        ] {
            assert_eq!(Shape::of(path), Shape::Novita, "{path}");
        }
    }

    #[test]
    fn every_shape_says_every_fault_with_its_real_status() {
        let faults = || {
            [
                (EdgeFault::UnknownPath, 404),
                (EdgeFault::WrongMethod, 405),
                (EdgeFault::ForeignHost { host: "x".to_owned() }, 403),
                (
                    EdgeFault::ForeignPage {
                        origin: "x".to_owned(),
                    },
                    403,
                ),
                (
                    EdgeFault::TooOften(RateExceeded {
                        bucket: RateBucket::Calls,
                        of: "key",
                        per_minute: 6,
                        retry_after: Duration::from_secs(10),
                    }),
                    429,
                ),
                (BodyError::TooSlow.into(), 408),
                (BodyError::TooLarge { limit: 1 << 20 }.into(), 413),
                (BodyError::NoRoom.into(), 503),
                (
                    EdgeFault::Panicked {
                        text: "the secret".to_owned(),
                    },
                    500,
                ),
            ]
        };
        for shape in [
            Shape::Own,
            Shape::ModelsLab,
            Shape::OpenAi,
            Shape::A1111,
            Shape::Novita,
        ] {
            for (fault, status) in faults() {
                let (kind, text) = (fault.kind(), fault.to_string());
                let failure = shape.failure(fault);
                assert_eq!(
                    (failure.status.as_u16(), failure.kind),
                    (status, kind),
                    "{shape:?}: {text}"
                );
                assert_eq!(
                    failure.retry_after_s.is_some(),
                    kind.is_retryable() || status == 429,
                    "{shape:?}: {text}"
                );
                let body = (failure.shape)(&failure, "req-1").to_string();
                assert!(
                    body.contains("req-1") && !body.contains("secret"),
                    "{shape:?}: {body}"
                );
            }
        }
    }
}
