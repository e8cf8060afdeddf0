//! `POST /mcp`: the Model Context Protocol (revisions 2025-11-25 and 2025-06-18) over streamable HTTP, for agents.
//!
//! It is the part that a server with tools and without sessions needs: each message is answered by itself, so that nothing grows
//! with the number of agents. Messages are read by the bounded reader of all bodies.

mod agent_tools;
mod fields;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use pentimento_service::RateCaller;
use pentimento_types::ErrorKind;
use serde_json::{Value, json};

use crate::AppState;
use crate::admin::{Caller, OwnError};
use crate::base_url::BaseUrl;
use crate::body::{self, BodyError, BodyMemory, Sender};
use crate::client_address::client_address;
use crate::dialects::field::names;
use crate::dialects::json::{self, Fields, Json, JsonError, parse_object};
use crate::dialects::lenient::{object, text};
use crate::origin::origin_of;
use crate::pieces::{json_reply, members, with_text};
use agent_tools::{AgentTools, Answer, TOOLS, Tool};

/// The members of a message of JSON-RPC that matter to a server.
const MESSAGE: &[&str] = &["jsonrpc", "id", "method", "params"];
/// The newest first. What a server with tools must do is the same in all of them.
const REVISIONS: [&str; 2] = ["2025-11-25", "2025-06-18"];
/// Of an id, which is repeated in the answer.
const MAX_ID_BYTES: usize = 256;
const REVISION_HEADER: &str = "mcp-protocol-version";
const INSTRUCTIONS: &str = "Pictures by Stable Diffusion: from words, or by changing a picture, within a mask or as a whole. \
                            list_models says which models there are. A picture takes seconds to minutes; where that is too long to \
                            wait for, call generate_image with wait false and ask job_status.";

/// JSON-RPC's codes.
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const PARSE_ERROR: i32 = -32700;

/// Its one path. There is nothing to listen to, and no session to end, so that other methods are none of it.
pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/mcp", post(mcp))
}

async fn mcp(
    State(app): State<AppState>,
    Caller(owner): Caller,
    base: BaseUrl,
    request: Request,
) -> Result<Response, OwnError> {
    let (parts, body) = request.into_parts();
    let address = client_address(&parts.extensions, &parts.headers, app.config.trust_forwarded);
    let memory = BodyMemory::new(&app.bodies, Sender::Identified)?;
    let body = body::read(&parts.headers, body, &app.config, memory, |_, _| {
        Ok::<(), BodyError>(())
    });
    let body = body.await?;
    let read = body::off_thread(move || {
        let copies = json::copies(body.bytes());
        let (bytes, memory) = body.with_room(copies)?;
        Ok::<_, BodyError>((parse_object(&bytes, MESSAGE), memory))
    });
    let (message, memory) = read.await?;
    let message = match message {
        Ok(fields) => Message::of(fields),
        Err(error) => {
            // A list is JSON, and these revisions have no batches.
            let code = if error == JsonError::NotAnObject {
                INVALID_REQUEST
            } else {
                PARSE_ERROR
            };
            return Ok(fault(StatusCode::BAD_REQUEST, &Value::Null, (code, error)));
        }
    };
    let Some(Message { id, method, params }) = message else {
        let wrong = "a message has jsonrpc 2.0 and a method, and an id that is a whole number or a text of at most 256 bytes";
        return Ok(fault(
            StatusCode::BAD_REQUEST,
            &Value::Null,
            (INVALID_REQUEST, wrong),
        ));
    };
    if let Some(refused) = refused_revision(&parts.headers, &id) {
        return Ok(refused);
    }
    let who = RateCaller::of_owner(&owner, address);
    let Some(id) = id else {
        // Notifications ask for nothing, and of them one changes something here.
        if method == "notifications/cancelled"
            && let Some(id) = cancelled(params)
        {
            app.waiting_calls.cancel(&(who, id));
        }
        return Ok(StatusCode::ACCEPTED.into_response());
    };
    Ok(match method.as_str() {
        "initialize" => answer(&id, &hello(params)),
        "ping" => answer(&id, &json!({})),
        "tools/list" => answer(&id, &json!({"tools": agent_tools::described()})),
        "tools/call" => {
            let caller = who;
            let who = (owner, base, origin_of(&parts, app.service.traces()));
            match called(params) {
                Ok((tool, arguments)) => {
                    let mut waiting = app.waiting_calls.enter((caller, id.to_string()));
                    let tools = AgentTools::new(app, who);
                    // The memory is held until the arguments are with the service: they have the pictures in them.
                    tokio::select! {
                        answer = tools.call(tool, (arguments, memory)) => tool_answer(&id, answer),
                        // The call is dropped, and with it the job that it waits for.
                        () = waiting.cancelled() => tool_answer(&id, Answer::cancelled()),
                    }
                }
                Err(problem) => fault(StatusCode::OK, &id, (INVALID_PARAMS, problem)),
            }
        }
        _ => {
            let known = "this server knows initialize, ping, tools/list and tools/call";
            fault(StatusCode::OK, &id, (METHOD_NOT_FOUND, known))
        }
    })
}

/// A message that asks for something, or tells it.
struct Message {
    /// None of a notification.
    id: Option<Value>,
    method: String,
    params: Json,
}

impl Message {
    fn of(mut fields: Fields) -> Option<Self> {
        let version = text("jsonrpc", fields.take("jsonrpc")).ok()??;
        let is_request = fields.contains("id");
        let id = match fields.take("id") {
            Json::Null if is_request => return None,
            Json::Null => None,
            Json::Integer(id) => Some(i64::try_from(id).ok()?.into()),
            Json::Text(id) if id.len() > MAX_ID_BYTES => return None,
            Json::Text(id) => Some(id.into()),
            Json::Bool(_) | Json::Number(_) | Json::File(_) | Json::List(_) | Json::Object(_) => return None,
        };
        let method = text("method", fields.take("method")).ok()??;
        let params = fields.take("params");
        (version == "2.0").then_some(Self { id, method, params })
    }
}

/// Which call is not wanted any more.
fn cancelled(params: Json) -> Option<String> {
    let members = object("params", params).ok()??;
    let id = match Fields::from_object(members, &["requestId"]).take("requestId") {
        Json::Integer(id) => Value::from(i64::try_from(id).ok()?),
        Json::Text(id) if id.len() <= MAX_ID_BYTES => id.into(),
        Json::Null
        | Json::Bool(_)
        | Json::Number(_)
        | Json::Text(_)
        | Json::File(_)
        | Json::List(_)
        | Json::Object(_) => return None,
    };
    Some(id.to_string())
}

/// Whether the caller speaks another revision than was agreed on; who says nothing speaks an old one.
fn refused_revision(headers: &HeaderMap, id: &Option<Value>) -> Option<Response> {
    let said = headers.get(REVISION_HEADER)?;
    let known = REVISIONS
        .iter()
        .any(|revision| said.as_bytes() == revision.as_bytes());
    let problem = format!("{REVISION_HEADER} must be one of {}", REVISIONS.join(", "));
    let id = id.clone().unwrap_or_default();
    (!known).then(|| fault(StatusCode::BAD_REQUEST, &id, (INVALID_REQUEST, problem)))
}

/// What a client is told first. It proposes a revision, and gets the newest one where that is not known.
fn hello(params: Json) -> Value {
    let members = object("params", params).ok().flatten().unwrap_or_default();
    let mut params = Fields::from_object(members, &["protocolVersion"]);
    let proposed = text("protocolVersion", params.take("protocolVersion"))
        .ok()
        .flatten();
    let known = REVISIONS
        .iter()
        .find(|revision| proposed.as_deref() == Some(**revision));
    json!({
        "protocolVersion": known.unwrap_or(&REVISIONS[0]),
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "pentimento", "version": env!("CARGO_PKG_VERSION")},
        "instructions": INSTRUCTIONS,
    })
}

/// The tool that is called, with its arguments.
fn called(params: Json) -> Result<(&'static Tool, Fields), String> {
    let unreadable = |problem: crate::dialects::lenient::FieldError| problem.message;
    let members = object("params", params).map_err(unreadable)?.unwrap_or_default();
    let mut params = Fields::from_object(members, &["name", "arguments"]);
    let name = text("name", params.take("name"))
        .map_err(unreadable)?
        .unwrap_or_default();
    let tool = TOOLS.iter().find(|tool| tool.name == name).ok_or_else(|| {
        let names: Vec<&str> = TOOLS.iter().map(|tool| tool.name).collect();
        format!("there is no such tool; there are {}", names.join(", "))
    })?;
    let arguments = object("arguments", params.take("arguments")).map_err(unreadable)?;
    let arguments = Fields::from_object(arguments.unwrap_or_default(), &names(&[tool.arguments]));
    Ok((tool, arguments))
}

fn answer(id: &Value, result: &Value) -> Response {
    let message = json!({"jsonrpc": "2.0", "id": id, "result": result});
    json_reply(vec![message.to_string().into()])
}

/// Images, and what there is to know of them as JSON, in both places where agents look for it.
fn tool_answer(id: &Value, answer: Answer) -> Response {
    let begin = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[");
    let mut pieces = vec![Bytes::from(begin)];
    for (text, kind) in answer.images {
        pieces.extend(with_text(
            "data",
            text,
            &json!({"type": "image", "mimeType": kind}),
        ));
        pieces.push(Bytes::from_static(b","));
    }
    let text = answer.text.unwrap_or_else(|| answer.about.to_string());
    pieces.push(json!({"type": "text", "text": text}).to_string().into());
    let mut others = json!({"isError": answer.failure.is_some()});
    if !answer.about.is_null() {
        others["structuredContent"] = answer.about;
    }
    pieces.push(Bytes::from_static(b"],"));
    pieces.push(members(&others));
    pieces.push(Bytes::from_static(b"}"));
    let mut response = json_reply(pieces);
    if let Some(kind) = answer.failure {
        counted(&mut response, kind);
    }
    response
}

fn fault(status: StatusCode, id: &Value, (code, message): (i32, impl std::fmt::Display)) -> Response {
    let error = json!({"code": code, "message": message.to_string()});
    let message = json!({"jsonrpc": "2.0", "id": id, "error": error});
    let mut response = (status, json_reply(vec![message.to_string().into()])).into_response();
    // Every code above is about what was sent.
    counted(&mut response, ErrorKind::InvalidInput);
    response
}

/// Lets it be counted as a call that failed, which its status need not say.
fn counted(response: &mut Response, kind: ErrorKind) {
    response.extensions_mut().insert(kind);
}
