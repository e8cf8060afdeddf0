//! `GET /v1/jobs/{id}/events`: a job's life as server-sent events (the HTML standard, section 9.2), until it has ended.
//!
//! An event's id says what its reader has seen of the job, and not which message of a list it was. So whoever comes back
//! with `Last-Event-ID` is told what is new since, also by a server that was started anew, and nothing is kept for those who
//! do not come back. A reader who is slow misses news; what it gets is the latest.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use pentimento_service::{News, RateCaller, Seen, Service, ServiceError, Watcher};
use pentimento_types::{ApiKeyId, JobId, JobState};
use serde_json::{Value, json};

use super::query::EventsQuery;
use super::{parsed, wire};
use crate::AppState;
use crate::admin::{Caller, KeyRefused, OwnError};
use crate::base_url::BaseUrl;
use crate::client_address::client_address;
use crate::watch_seats::{NoSeat, WatchSeat};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Proxies that collect a reply before they pass it on are told not to.
const BUFFERING: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);
/// The id of the last event.
const END: &str = "end";
/// A comment after so long without an event, for proxies that close what is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often a job that waits is looked at for its place in the line.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);
/// After how long a reader whose connection broke comes back.
const RETRY: Duration = Duration::from_secs(2);

/// A caller, told apart from others also where all have one owner.
pub(super) struct Reader {
    owner: ApiKeyId,
    who: RateCaller,
}

impl FromRequestParts<AppState> for Reader {
    type Rejection = KeyRefused;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, KeyRefused> {
        let Caller(owner) = Caller::from_request_parts(parts, app).await?;
        let address = client_address(&parts.extensions, &parts.headers, app.config.trust_forwarded);
        let who = RateCaller::of_owner(&owner, address);
        Ok(Self { owner, who })
    }
}

pub(super) async fn events(
    State(app): State<AppState>,
    Reader { owner, who }: Reader,
    base: BaseUrl,
    Path(id): Path<String>,
    (RawQuery(query), headers): (RawQuery, HeaderMap),
) -> Result<Response, OwnError> {
    let id = parsed(&id)?;
    let EventsQuery { previews } = EventsQuery::parse(query.as_deref())?;
    let seat = app.watch_seats.take(who).map_err(|no_seat| match no_seat {
        NoSeat::Own => OwnError::WatchesTooMany,
        NoSeat::All => OwnError::TooManyWatchers,
    })?;
    let watcher = app.service.watch(&owner, id, previews).await?;
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    if last == Some(END) {
        // Browsers come back after every end; this tells them not to.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let telling = Telling {
        service: app.service,
        base,
        id,
        watcher,
        seen: last.and_then(Cursor::parse).unwrap_or_default(),
        previews,
        told: (JobState::Fetching, 0, None),
        pending: vec![Event::default().retry(RETRY)],
        has_ended: false,
        _seat: seat,
    };
    let sse = Sse::new(telling.into_stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(([BUFFERING], sse).into_response())
}

/// What a reader has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// [`News::phase`]; None when it has seen nothing.
    phase: Option<u64>,
    /// One more than the evaluations of the latest progress in this phase, 0 for none.
    progress: u32,
    /// The same of the latest preview.
    preview: u32,
}

impl Cursor {
    fn parse(id: &str) -> Option<Self> {
        let mut parts = id.split('.');
        let seen = Self {
            phase: Some(parts.next()?.parse().ok()?),
            progress: parts.next()?.parse().ok()?,
            preview: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(seen)
    }

    fn id(self) -> String {
        format!(
            "{}.{}.{}",
            self.phase.unwrap_or_default(),
            self.progress,
            self.preview
        )
    }
}

/// One reader.
struct Telling {
    service: Service,
    base: BaseUrl,
    id: JobId,
    watcher: Watcher,
    seen: Cursor,
    previews: bool,
    /// State, attempt and place in the line as it was told them.
    told: (JobState, u32, Option<usize>),
    /// The next one last.
    pending: Vec<Event>,
    has_ended: bool,
    _seat: WatchSeat,
}

impl Telling {
    fn into_stream(mut self) -> impl Stream<Item = Result<Event, Infallible>> {
        let now = self.watcher.now();
        let mut first = self.news(&now);
        first.extend(self.pending.pop());
        self.pending = first;
        futures::stream::unfold(self, |mut telling| async {
            let event = telling.next().await?;
            Some((Ok(event), telling))
        })
    }

    /// None at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop() {
                return Some(event);
            }
            if self.has_ended {
                return None;
            }
            // Not as the watcher has it now: to look at news there makes them old.
            let waits = matches!(self.told.0, JobState::Fetching | JobState::Queued);
            let seen = if waits {
                match tokio::time::timeout(BETWEEN_LOOKS, self.watcher.next()).await {
                    Ok(seen) => seen,
                    Err(_) => {
                        let moved = self.moved_up();
                        self.pending.extend(moved);
                        continue;
                    }
                }
            } else {
                self.watcher.next().await
            };
            self.take_in(seen);
        }
    }

    fn take_in(&mut self, seen: Result<Seen, ServiceError>) {
        match seen {
            Ok(Seen::News(news)) => self.pending = self.news(&news),
            Ok(Seen::Ended(job)) => self.end(&wire::whole(&self.service, &self.base, &job)),
            Err(ServiceError::JobNotFound { id }) => {
                self.end(&json!({"id": id.to_string(), "deleted": true}))
            }
            // Without an end, so that the reader comes back.
            Ok(Seen::Leaving) | Err(_) => self.has_ended = true,
        }
    }

    fn end(&mut self, job: &Value) {
        self.has_ended = true;
        self.pending = vec![event("end", Some(END), job)];
    }

    /// What of it the reader has not seen, the last one first.
    fn news(&mut self, news: &News) -> Vec<Event> {
        // How a job has ended is read from its record.
        if news.state.is_final() {
            return Vec::new();
        }
        let mut events = Vec::new();
        if self.seen.phase.is_none_or(|seen| seen < news.phase()) {
            self.seen = Cursor {
                phase: Some(news.phase()),
                ..Cursor::default()
            };
            let id = self.seen.id();
            events.push(self.state(Some(&id), (news.state, news.attempt)));
        }
        (self.told.0, self.told.1) = (news.state, news.attempt);
        if self.seen.phase == Some(news.phase()) {
            if let Some(progress) = news.progress
                && progress.done >= self.seen.progress
            {
                self.seen.progress = progress.done.saturating_add(1);
                let data = wire::progress(progress);
                events.push(event("progress", Some(&self.seen.id()), &data));
            }
            if let Some(preview) = news.preview.as_ref().filter(|_| self.previews)
                && preview.at.done >= self.seen.preview
            {
                self.seen.preview = preview.at.done.saturating_add(1);
                events.push(event("preview", Some(&self.seen.id()), &wire::preview(preview)));
            }
        }
        events.reverse();
        events
    }

    fn state(&mut self, id: Option<&str>, (state, attempt): (JobState, u32)) -> Event {
        let standing = wire::standing(&self.service, self.id);
        self.told = (state, attempt, wire::position(standing, state));
        event("state", id, &wire::state(standing, (state, attempt)))
    }

    /// The same state again, without an id, when the job has another place in the line.
    fn moved_up(&mut self) -> Option<Event> {
        let (state, attempt, position) = self.told;
        let standing = wire::standing(&self.service, self.id);
        let moved = wire::position(standing, state) != position;
        moved.then(|| self.state(None, (state, attempt)))
    }
}

/// One without an id leaves its reader with the id of the one before.
fn event(name: &str, id: Option<&str>, data: &Value) -> Event {
    let event = Event::default().event(name);
    let event = match id {
        Some(id) => event.id(id),
        None => event,
    };
    event.data(data.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_as_it_went() {
        let cursor = Cursor {
            phase: Some(4),
            progress: 3,
            preview: 2,
        };
        assert_eq!(Cursor::parse(&cursor.id()), Some(cursor));
        for wrong in ["", "end", "1.2", "1.2.3.4", "1.2.x", "-1.0.0", "1.2.99999999999"] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
    }
}
