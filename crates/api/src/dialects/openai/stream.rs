//! A call with `stream`: previews while the job runs, then its images, as server-sent events with OpenAI's names.
//!
//! Who hangs up cancels the job, as with a plain call. Files are sent as they are counted, and are not copied.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use pentimento_service::{Preview, Seen, Service, ServiceError, Watcher, finished_images};
use pentimento_types::{ApiKeyId, Clock as _, Job, JobId, SystemClock};
use serde_json::{Value, json};

use super::convert::{Call, ReplyStyle};
use super::error::OpenAiError;
use super::reply::{about, seconds, usage, with_file};
use crate::failure::Failure;
use crate::watch_seats::WatchSeat;

/// Proxies that collect a reply before they pass it on are told not to.
const BUFFERING: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);
/// A comment after so long without an event, for proxies that close what is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Who is told of a job.
pub(super) struct Follower {
    pub(super) service: Service,
    pub(super) owner: ApiKeyId,
    pub(super) call: Call,
    pub(super) style: ReplyStyle,
    pub(super) request_id: String,
}

type End = Pin<Box<dyn Future<Output = Result<Job, ServiceError>> + Send>>;

impl Follower {
    /// The stream of a job that was just made; `previews` at most come before its images.
    pub(super) async fn follow(
        self,
        (id, is_named): (JobId, bool),
        (previews, seat): (u32, WatchSeat),
    ) -> Result<Response, OpenAiError> {
        let service = self.service.clone();
        // Who has given the request a name will ask for the job again.
        let mut end: End = Box::pin(async move {
            if is_named {
                service.wait(id).await
            } else {
                service.wait_or_cancel(id).await
            }
        });
        // From its first poll on it knows when the caller leaves, which may be before anything else is done here, or anything of
        // the body is asked for.
        let ended = (&mut end).now_or_never().transpose()?;
        let watcher = if previews > 0 {
            Some(self.service.watch(&self.owner, id, true).await?)
        } else {
            None
        };
        let following = Following {
            watcher: watcher.filter(|_| ended.is_none()),
            end: Some(end).filter(|_| ended.is_none()),
            partials: Partials::of(previews),
            ended: ended.map(|job| (job, 0)),
            follower: self,
            _seat: seat,
        };
        let pieces = futures::stream::unfold(following, |mut following| async {
            let pieces = following.next().await?;
            Some((
                futures::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)),
                following,
            ))
        });
        let body = Body::from_stream(pieces.flatten());
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            BUFFERING,
        ];
        Ok((headers, body).into_response())
    }
}

/// One stream.
struct Following {
    // Dropped before `end`: while a watcher waits for the job, nobody's leaving cancels it.
    watcher: Option<Watcher>,
    /// None when the job has ended.
    end: Option<End>,
    partials: Partials,
    /// The job, and how many of its images have been sent.
    ended: Option<(Job, usize)>,
    follower: Follower,
    _seat: WatchSeat,
}

impl Following {
    /// The pieces of the next event; None after the last one.
    async fn next(&mut self) -> Option<Vec<Bytes>> {
        // Whatever is news and not told keeps nobody's connection alive.
        let silent_until = tokio::time::Instant::now() + KEEP_ALIVE;
        loop {
            if self.ended.is_some() {
                return self.image().await;
            }
            let end = self.end.as_mut()?;
            let watcher = self.watcher.as_mut();
            let news = async {
                match watcher {
                    Some(watcher) => watcher.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                job = end => {
                    self.end = None;
                    self.watcher = None;
                    match job {
                        Ok(job) => self.ended = Some((job, 0)),
                        Err(error) => return Some(self.failed(error)),
                    }
                }
                seen = news => match seen {
                    Ok(Seen::News(news)) => {
                        let preview = news.preview.filter(|preview| self.partials.take(preview));
                        if let Some(preview) = preview {
                            return Some(self.partial(&preview));
                        }
                    }
                    // The other future says how it ended.
                    Ok(Seen::Ended(_) | Seen::Leaving) | Err(_) => self.watcher = None,
                },
                () = tokio::time::sleep_until(silent_until) => return Some(vec![Bytes::from_static(b":\n\n")]),
            }
        }
    }

    /// The next finished image, or why there is none.
    async fn image(&mut self) -> Option<Vec<Bytes>> {
        let (job, sent) = self.ended.as_mut()?;
        let images = match finished_images(job) {
            Ok(images) => images,
            Err(error) => {
                self.ended = None;
                return Some(self.failed(error));
            }
        };
        let image = images.get(*sent)?;
        *sent += 1;
        let mut members = about(job, std::slice::from_ref(image), self.follower.style);
        members["created_at"] = seconds(job).into();
        members["usage"] = usage();
        members["seed"] = image.seed.into();
        let text = self.follower.service.picture_text(image).await;
        match text {
            Ok(text) => Some(self.event("completed", (text, members))),
            Err(error) => {
                self.ended = None;
                Some(self.failed(error))
            }
        }
    }

    fn partial(&self, preview: &Arc<Preview>) -> Vec<Bytes> {
        let now = SystemClock.wall().duration_since(std::time::UNIX_EPOCH);
        let members = json!({
            "background": "opaque",
            "created_at": now.unwrap_or_default().as_secs(),
            // What this file is; the images have the format that was asked for.
            "output_format": "jpeg",
            "partial_image_index": self.partials.sent.saturating_sub(1),
            "quality": self.follower.style.quality,
            "size": preview.size.to_string(),
        });
        self.event("partial_image", (STANDARD.encode(&preview.file).into(), members))
    }

    fn event(&self, end: &str, (text, mut members): (Bytes, Value)) -> Vec<Bytes> {
        let begin = match self.follower.call {
            Call::Generation => "image_generation",
            // There are no streams of variations upstream, and theirs look like those of an edit.
            Call::Edit | Call::Variation => "image_edit",
        };
        let name = format!("{begin}.{end}");
        let head = format!("event: {name}\ndata: ");
        members["type"] = name.into();
        let [one, two, three] = with_file(text, &members);
        vec![head.into(), one, two, three, Bytes::from_static(b"\n\n")]
    }

    /// The clients raise what an `error` in the data says.
    fn failed(&self, error: ServiceError) -> Vec<Bytes> {
        let failure = Failure::from(OpenAiError::from(error));
        let text = failure.cause.as_deref().unwrap_or(&failure.message);
        tracing::info!(
            kind = failure.kind.as_str(),
            "a stream ends with an error: {text}"
        );
        let data = (failure.shape)(&failure, &self.follower.request_id);
        vec![format!("event: error\ndata: {data}\n\n").into()]
    }
}

/// Which previews are sent: the first that comes when a job has done another equal part of its evaluations.
#[derive(Debug, PartialEq, Eq)]
struct Partials {
    wanted: u32,
    sent: u32,
    /// Parts that are behind.
    passed: u64,
}

impl Partials {
    const fn of(wanted: u32) -> Self {
        Self {
            wanted,
            sent: 0,
            passed: 0,
        }
    }

    fn take(&mut self, preview: &Preview) -> bool {
        let (done, total) = (u64::from(preview.at.done), u64::from(preview.at.total.max(1)));
        // The last part ends with the images themselves.
        let part = done * (u64::from(self.wanted) + 1) / total;
        let takes = self.sent < self.wanted && part > self.passed;
        if takes {
            self.sent += 1;
            self.passed = part;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Progress, Size};

    use super::*;

    #[test]
    fn previews_are_spread_over_the_run() {
        let at = |done| Preview {
            index: 0,
            at: Progress { done, total: 20 },
            file: Bytes::new(),
            size: Size { width: 8, height: 8 },
        };
        let taken = |wanted, seen: &[u32]| -> Vec<u32> {
            let mut partials = Partials::of(wanted);
            let taken = seen.iter().copied().filter(|done| partials.take(&at(*done)));
            taken.collect()
        };
        let all: Vec<u32> = (0..=20).collect();
        assert_eq!(taken(3, &all), [5, 10, 15]);
        assert_eq!(taken(1, &all), [10]);
        assert_eq!(taken(0, &all), Vec::<u32>::new());
        // Who comes late gets fewer of them, and none twice.
        assert_eq!(taken(3, &[1, 16, 16, 17]), [16]);
    }
}
