//! One call, and its form in the document.

use serde_json::{Map, Value, json};

use super::schema::{form_of, object_of, schema_of};
use crate::FieldDescription;
use crate::dialects::fields_of;

/// How a caller says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    /// `Authorization: Bearer`, where the server has keys.
    Bearer,
    /// The same, or `Authorization: Basic`, for which a browser asks its user.
    BasicOrBearer,
    /// A field of the body.
    Body,
    /// Nobody is asked.
    None,
}

impl Auth {
    /// The scheme that `WWW-Authenticate` names to who has no right.
    const fn challenge(self) -> &'static str {
        match self {
            Self::BasicOrBearer => "Basic",
            Self::Bearer | Self::Body | Self::None => "Bearer",
        }
    }
}

/// What stands behind the `?` or in the path.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: &'static str,
    pub(super) schema: Value,
    pub(super) text: &'static str,
}

/// An answer when all is well: its status, words about it, and its content type with the schema.
pub(super) type Reply = (u16, &'static str, Option<(&'static str, Value)>);

/// One call.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) tag: &'static str,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// More about it; may be empty.
    pub(super) text: &'static str,
    pub(super) auth: Auth,
    pub(super) parameters: Vec<Parameter>,
    /// The body may be a form as well, in which images are files.
    pub(super) takes_form: bool,
    /// The body is a file, and has no fields.
    pub(super) takes_file: bool,
    /// A body that works as it is, for those that have a table of fields.
    pub(super) example: Option<Value>,
    /// What is answered when all is well: status, words, content type and schema.
    pub(super) replies: Vec<Reply>,
    /// Statuses of failures.
    pub(super) failures: &'static [u16],
    /// Name of the schema of a failure.
    pub(super) failure: &'static str,
}

/// What the calls of one tag share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) tag: &'static str,
    pub(super) auth: Auth,
    /// Statuses of failures, and the name of their schema.
    pub(super) failures: &'static [u16],
    pub(super) failure: &'static str,
}

impl Family {
    /// A call by method and path, with its id and summary, of which no more is to be said.
    pub(super) fn call(
        self,
        (method, path): (&'static str, &'static str),
        (id, summary): (&'static str, &'static str),
        replies: Vec<Reply>,
    ) -> Operation {
        Operation {
            tag: self.tag,
            method,
            path,
            id,
            summary,
            text: "",
            auth: self.auth,
            parameters: Vec::new(),
            takes_form: false,
            takes_file: false,
            example: None,
            replies,
            failures: self.failures,
            failure: self.failure,
        }
    }
}

pub(super) const JSON: &str = "application/json";
const FORM: &str = "multipart/form-data";

/// A schema by its name.
pub(super) fn named(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A reply with status 200 that has the schema of this name.
pub(super) fn ok(words: &'static str, schema: &str) -> Vec<Reply> {
    vec![(200, words, Some((JSON, named(schema))))]
}

impl Operation {
    /// The fields of its body or query, where it has a table.
    pub(super) fn fields(&self) -> Vec<FieldDescription> {
        fields_of(self.method, self.path)
    }

    pub(super) fn described(&self) -> Value {
        let mut parameters: Vec<Value> = self
            .parameters
            .iter()
            .map(|parameter| {
                json!({
                    "name": parameter.name,
                    "in": parameter.place,
                    "required": parameter.place == "path",
                    "description": parameter.text,
                    "schema": parameter.schema,
                })
            })
            .collect();
        let mut described = json!({
            "tags": [self.tag],
            "operationId": self.id,
            "summary": self.summary,
            "responses": self.responses(),
        });
        if !self.text.is_empty() {
            described["description"] = self.text.into();
        }
        // ModelsLab's calls take the header as well as the field.
        if self.auth != Auth::None {
            described["security"] = json!([{"bearer": []}, {}]);
        }
        let fields = self.fields();
        if self.method == "POST" && !fields.is_empty() {
            let mut content = json!({"schema": object_of(&fields)});
            if let Some(example) = &self.example {
                content["example"] = example.clone();
            }
            let mut contents = json!({JSON: content});
            if self.takes_form {
                contents[FORM] = json!({"schema": form_of(&fields)});
            }
            described["requestBody"] = json!({"required": true, "content": contents});
        } else if self.takes_file {
            let content =
                json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}});
            described["requestBody"] = json!({"required": true, "content": content});
        } else {
            parameters.extend(fields.iter().map(|field| {
                json!({
                    "name": field.name,
                    "in": "query",
                    "required": field.required,
                    "schema": schema_of(field),
                })
            }));
        }
        if !parameters.is_empty() {
            described["parameters"] = parameters.into();
        }
        described
    }

    fn responses(&self) -> Value {
        let mut responses = Map::new();
        for (status, words, content) in &self.replies {
            let mut response = json!({"description": words});
            if let Some((kind, schema)) = content {
                response["content"] = json!({*kind: {"schema": schema}});
            }
            responses.insert(status.to_string(), response);
        }
        for status in self.failures {
            let mut response = json!({
                "description": words_of(*status),
                "content": {JSON: {"schema": named(self.failure)}},
            });
            if *status == 401 {
                response["headers"] = json!({"WWW-Authenticate": {
                    "description": "How a key is sent.",
                    "schema": {"enum": [self.auth.challenge()]},
                }});
            }
            responses.insert(status.to_string(), response);
        }
        Value::Object(responses)
    }
}

/// What a status says here, in a few words.
pub(super) const fn words_of(status: u16) -> &'static str {
    match status {
        400 => "Something in the request cannot be accepted; the message names it.",
        401 => "The server has keys, and none was sent, or a wrong one.",
        403 => "The key is none of this server's, may not do this, or the call comes from a foreign page.",
        404 => "There is no such thing, or it is somebody else's.",
        405 => "The path takes other methods.",
        408 => "The body came too slowly.",
        409 => "It is too late for that, or the idempotency key was used for another request.",
        422 => "A field cannot be accepted; `detail` names it.",
        413 => "The body is larger than the server takes.",
        429 => "More than the limits allow, or no place in the queue; `Retry-After` says when to come back.",
        500 => "The server failed; its log has more under the `request_id`.",
        501 => "The original has this call, and this server has not.",
        503 => {
            "The server is stopping, its disk is full, or a model is still on its way; `Retry-After` says when to come back."
        }
        504 => "It took longer than may be waited.",
        _ => "The call failed.",
    }
}
