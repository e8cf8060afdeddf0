//! `GET /docs`: the calls for people, a page without scripts, made of the same table as the document.

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::operation::{Auth, Operation, words_of};
use super::schema::{default_of, description, value_of};
use super::{TAGS, operations};
use crate::FieldDescription;
use crate::base_url::BaseUrl;

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(super) async fn page(base: BaseUrl) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, whole(&base).into_string()).into_response()
}

fn whole(base: &BaseUrl) -> Markup {
    let all = operations();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Pentimento: its calls" }
                link rel="stylesheet" href="/playground/docs.css";
                link rel="icon" href="/playground/icon.svg" type="image/svg+xml";
            }
            body {
                header {
                    h1 { "Pentimento" }
                    p {
                        "Every call of this server, version " (env!("CARGO_PKG_VERSION")) ". "
                        a href="/openapi.json" { "OpenAPI 3.1" } ", or of one dialect: "
                        @for (tag, _) in TAGS {
                            a href={"/openapi/" (tag) ".json"} { (tag) } " "
                        }
                        "· " a href="/" { "Playground" }
                    }
                }
                nav aria-label="Calls" {
                    @for (tag, _) in TAGS {
                        h2 { (tag) }
                        ul {
                            @for call in all.iter().filter(|call| call.tag == tag) {
                                li { a href={"#" (call.id)} { span.method { (call.method) } " " (call.path) } }
                            }
                        }
                    }
                }
                main {
                    @for (tag, about) in TAGS {
                        section aria-labelledby={"tag-" (tag)} {
                            h2 id={"tag-" (tag)} { (tag) }
                            p { (about) }
                            @for call in all.iter().filter(|call| call.tag == tag) {
                                (described(call, base))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn described(call: &Operation, base: &BaseUrl) -> Markup {
    let fields = call.fields();
    html! {
        article id=(call.id) {
            h3 { span.method { (call.method) } " " code { (call.path) } }
            p { (call.summary) "." }
            @if !call.text.is_empty() { p { (call.text) } }
            @if !call.parameters.is_empty() {
                table {
                    thead { tr { th scope="col" { "parameter" } th scope="col" { "where" } th scope="col" { "what it is" } } }
                    tbody {
                        @for parameter in &call.parameters {
                            tr { th scope="row" { code { (parameter.name) } } td { (parameter.place) } td { (parameter.text) } }
                        }
                    }
                }
            }
            @if !fields.is_empty() { (table_of(&fields)) }
            @if call.method == "POST" || call.method == "GET" {
                details {
                    summary { "As curl" }
                    pre { code { (curl(call, base)) } }
                }
            }
            details {
                summary { "Answers" }
                ul {
                    @for (status, words, _) in &call.replies { li { code { (status) } " " (words) } }
                    @for status in call.failures { li { code { (status) } " " (words_of(*status)) } }
                }
            }
        }
    }
}

fn table_of(fields: &[FieldDescription]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "field" } th scope="col" { "value" } th scope="col" { "default" }
                    th scope="col" { "what it does" }
                }
            }
            tbody {
                @for field in fields {
                    (row(field, ""))
                    @for member in &field.members { (row(member, field.name)) }
                }
            }
        }
    }
}

fn row(field: &FieldDescription, inside: &str) -> Markup {
    html! {
        tr {
            th scope="row" { @if !inside.is_empty() { (inside) "." } code { (field.name) } }
            td { (value_of(field)) }
            td { (default_of(field)) }
            td { (description(field)) }
        }
    }
}

/// A request that works on this server as it is, where the call has an example.
fn curl(call: &Operation, base: &BaseUrl) -> String {
    let address = base.join(call.path);
    let mut lines = vec![match call.method {
        "GET" => format!("curl '{address}'"),
        method => format!("curl -X {method} '{address}'"),
    }];
    if matches!(call.auth, Auth::Bearer | Auth::BasicOrBearer) {
        lines.push("-H 'Authorization: Bearer <your key>'".to_owned());
    }
    if call.takes_file {
        lines.push("--data-binary @picture.png".to_owned());
    }
    if let Some(example) = &call.example {
        lines.push("-H 'Content-Type: application/json'".to_owned());
        let body = serde_json::to_string_pretty(example).unwrap_or_default();
        lines.push(format!("-d '{body}'"));
    }
    lines.join(" \\\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_call_and_every_field() {
        let base = BaseUrl::for_tests("http://pictures.example");
        let page = whole(&base).into_string();
        for call in operations() {
            assert!(page.contains(&format!("id=\"{}\"", call.id)), "{}", call.id);
            for field in call.fields() {
                assert!(
                    page.contains(&format!("<code>{}</code>", field.name)),
                    "{}",
                    field.name
                );
            }
        }
        assert!(page.contains("curl -X POST 'http://pictures.example/v3/lcm-img2img'"));
        assert!(!page.contains("<script"), "the page has no scripts");
    }
}
