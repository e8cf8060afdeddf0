//! `docs/fields.md`: every field of every call, from the same tables.

use std::fmt::Write as _;

use super::operations;
use super::schema::{default_of, description, value_of};
use crate::FieldDescription;

const BEGINNING: &str = "# Every field of every call\n\nMade from the tables that the calls read by (`crates/api/src/dialects/*/fields.rs`); \
                         a server has the same at `/docs` and as `/openapi.json`.\n";

/// The document.
pub(super) fn fields() -> String {
    let mut text = BEGINNING.to_owned();
    for call in operations() {
        let fields = call.fields();
        if fields.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\n## {} {}\n\n{}.\n\n",
            call.method, call.path, call.summary
        );
        text.push_str("| field | value | default | what it does |\n|---|---|---|---|\n");
        for field in &fields {
            row(&mut text, field, "");
            for member in &field.members {
                row(&mut text, member, field.name);
            }
        }
    }
    text
}

fn row(text: &mut String, field: &FieldDescription, inside: &str) {
    let dot = if inside.is_empty() { "" } else { "." };
    let default = default_of(field);
    let _ = writeln!(
        text,
        "| `{inside}{dot}{}` | {} | {default} | {} |",
        field.name,
        value_of(field).replace('|', "\\|"),
        description(field).replace('|', "\\|")
    );
}
