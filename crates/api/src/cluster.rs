//! Our own call about the machines that share this one's jobs.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use pentimento_service::Node;
use serde_json::{Value, json};

use crate::AppState;
use crate::admin::Operator;

/// The path under `/v1`.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/v1/cluster", get(cluster))
}

/// Who is there, and what each of them has. A server by itself is a cluster of none.
async fn cluster(State(app): State<AppState>, _operator: Operator) -> Json<Value> {
    let nodes = app.service.nodes();
    let state = match &nodes {
        None => "none",
        Some(_) if app.service.are_nodes_heard() => "connected",
        Some(_) => "alone",
    };
    let nodes: Vec<Value> = nodes.unwrap_or_default().iter().map(node).collect();
    Json(json!({"state": state, "nodes": nodes}))
}

fn node(node: &Node) -> Value {
    json!({
        "name": node.name,
        "is_here": node.is_here,
        "answers": node.answers,
        "works": node.works,
        "draining": node.draining,
        "version": node.version,
        "device": node.device,
        "precision": node.precision,
        "memory": {"limit_bytes": node.memory_bytes, "held_bytes": node.held_bytes},
        "jobs": {"running": node.running, "slots": node.slots},
        "images": node.images,
        "milliseconds_per_image": milliseconds_per_image(node),
        "resident_models": node.resident_models,
        "models": node.models,
        "heard_seconds_ago": node.heard_seconds_ago,
    })
}

/// How fast its device has been on what it was given; None before its first image.
fn milliseconds_per_image(node: &Node) -> Option<u64> {
    node.device_milliseconds.checked_div(node.images)
}

/// For the calls of a dialect that tell what a server is: callers may see which machines there are, and not what they are made of.
pub(crate) fn briefly(nodes: &[Node]) -> Vec<Value> {
    let brief = |node: &Node| {
        json!({
            "name": node.name,
            "answers": node.answers,
            "works": node.works,
            "draining": node.draining,
            "running_num": node.running,
            "resident_models": node.resident_models,
        })
    };
    nodes.iter().map(brief).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_known_from_the_first_image_on() {
        let mut known = Node {
            device_milliseconds: 900,
            ..Node::default()
        };
        assert_eq!(node(&known)["milliseconds_per_image"], Value::Null);
        known.images = 3;
        assert_eq!(node(&known)["milliseconds_per_image"], 300);
        assert_eq!(briefly(&[known])[0].get("device"), None);
    }
}
