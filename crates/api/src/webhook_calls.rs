//! Our own calls about webhooks: what has become of them, and sending one again.

use std::time::SystemTime;

use axum::extract::{Path, RawQuery, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use pentimento_service::{OutboxEntry, OutboxFilter, OutboxState};
use pentimento_types::WebhookId;
use serde_json::{Value, json};

use crate::AppState;
use crate::admin::{Caller, OwnError};

/// Paths under `/v1`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/webhooks", get(webhooks))
        .route("/v1/webhooks/{id}/replay", post(replay_webhook))
}

/// Newest last; the next page begins after the last id of this one.
async fn webhooks(
    State(app): State<AppState>,
    Caller(owner): Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, OwnError> {
    const PAGE: usize = 100;
    let mut filter = OutboxFilter {
        owner: Some(owner),
        limit: PAGE,
        ..OutboxFilter::default()
    };
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "state" => filter.states.push(webhook_state(&value)?),
            "job" => filter.job = Some(webhook_id(&value)?.job()),
            "after" => filter.after = Some(webhook_id(&value)?),
            _ => {}
        }
    }
    let found = app.service.webhooks(&filter).await?;
    let webhooks: Vec<Value> = found.iter().map(describe_webhook).collect();
    Ok(Json(json!({"webhooks": webhooks})))
}

async fn replay_webhook(
    State(app): State<AppState>,
    Caller(owner): Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, OwnError> {
    let replayed = app.service.replay_webhook(&owner, webhook_id(&id)?).await?;
    Ok(Json(describe_webhook(&replayed)))
}

/// Its own id, or its job's.
fn webhook_id(text: &str) -> Result<WebhookId, OwnError> {
    text.parse().map_err(|_| OwnError::NoWebhookId)
}

const WEBHOOK_STATES: [(OutboxState, &str); 3] = [
    (OutboxState::Pending, "pending"),
    (OutboxState::Delivered, "delivered"),
    (OutboxState::Dead, "dead"),
];

fn webhook_state(word: &str) -> Result<OutboxState, OwnError> {
    let mut states = WEBHOOK_STATES.into_iter();
    let found = states.find(|(_, name)| *name == word);
    found.map(|(state, _)| state).ok_or(OwnError::Parameter {
        name: "state",
        problem: "must be pending, delivered or dead".to_owned(),
    })
}

fn describe_webhook(webhook: &OutboxEntry) -> Value {
    let mut states = WEBHOOK_STATES.into_iter();
    let state = states.find(|(state, _)| *state == webhook.state);
    let since_epoch = webhook.due.duration_since(SystemTime::UNIX_EPOCH);
    json!({
        "id": webhook.id.to_string(),
        "job": webhook.job().to_string(),
        "url": webhook.url,
        "state": state.map(|(_, name)| name),
        "sendings": webhook.sendings,
        // When it is sent next; of one that is not, when that was decided.
        "at": since_epoch.unwrap_or_default().as_secs(),
        "problem": webhook.problem,
    })
}
