//! The playground: a page for people at `/`, of plain files that are part of the program. Other callers get the index there.
//!
//! Invariant: the page asks nobody but this server. Its policy says so to the browser, which also lets no text become markup.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::AppState;
use crate::admin::{edge_failure, index};
use crate::edge_fault::EdgeFault;

/// Scripts, styles and calls of this origin alone; blobs are the pictures of the visitor and previews. Trusted types with
/// no policy: the browser refuses to make markup of any text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";
const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// A file of the page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($name:literal: $content_type:expr),* $(,)?) => {
        &[$(Asset {
            name: $name,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../playground/", $name)),
        }),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const PAGE: Asset = Asset {
    name: "index.html",
    content_type: HTML,
    bytes: include_bytes!("../playground/index.html"),
};
/// What visitors without a picture at hand may try.
const SAMPLE: Asset = Asset {
    name: "sample.png",
    content_type: "image/png",
    bytes: include_bytes!("../../../tests/images/photo.png"),
};
const ASSETS: &[Asset] = assets! {
    "docs.css": CSS,
    "style.css": CSS,
    "icon.svg": "image/svg+xml",
    "api.js": SCRIPT,
    "code.js": SCRIPT,
    "dom.js": SCRIPT,
    "errors.js": SCRIPT,
    "gallery.js": SCRIPT,
    "incoming.js": SCRIPT,
    "jobs.js": SCRIPT,
    "key.js": SCRIPT,
    "main.js": SCRIPT,
    "mask.js": SCRIPT,
    "models.js": SCRIPT,
    "picture.js": SCRIPT,
    "requests.js": SCRIPT,
    "runs.js": SCRIPT,
    "settings.js": SCRIPT,
    "stage.js": SCRIPT,
    "theme.js": SCRIPT,
};

/// `/` and the page's files.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/", get(front))
        .route("/playground/{name}", get(asset))
}

async fn front(headers: HeaderMap) -> Response {
    let mut response = if wants_page(&headers) {
        PAGE.answer(&headers)
    } else {
        index().await.into_response()
    };
    response
        .headers_mut()
        .append(VARY, HeaderValue::from_static("accept"));
    response
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let found = ASSETS.iter().chain([&SAMPLE]).find(|asset| asset.name == name);
    found.map_or_else(
        || edge_failure(EdgeFault::UnknownPath).into_response(),
        |asset| asset.answer(&headers),
    )
}

/// Browsers name HTML; programs name JSON, or take anything.
fn wants_page(headers: &HeaderMap) -> bool {
    let html = quality(headers, "text/html");
    html > 0.0 && html >= quality(headers, "application/json")
}

/// How much a media type is wanted that is named itself; 0 where it is not.
fn quality(headers: &HeaderMap, wanted: &str) -> f32 {
    let accepted = headers.get_all(ACCEPT);
    let ranges = accepted
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let named = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_wanted = parts.next()?.eq_ignore_ascii_case(wanted);
        let quality = parts.find_map(|part| part.strip_prefix("q="));
        is_wanted.then(|| quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
    });
    named.fold(0.0, f32::max)
}

impl Asset {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let tag = tag(self);
        let known = headers.get_all(IF_NONE_MATCH).iter().any(|tags| {
            let mut tags = tags.to_str().unwrap_or_default().split(',').map(str::trim);
            tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag.trim_start_matches("W/"))
        });
        let shared = [
            (ETAG, tag.clone()),
            // A new version of the program is seen at once, and an old one costs a question.
            (CACHE_CONTROL, "no-cache".to_owned()),
        ];
        if known {
            return (StatusCode::NOT_MODIFIED, shared).into_response();
        }
        let own = [
            (CONTENT_TYPE, self.content_type),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (OPENER, "same-origin"),
        ];
        (shared, own, self.bytes).into_response()
    }
}

/// A weak one, since a file is the same however it is compressed.
fn tag(asset: &Asset) -> String {
    static TAGS: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
        let all = ASSETS.iter().chain([&PAGE, &SAMPLE]);
        all.map(|asset| {
            let mut hasher = DefaultHasher::new();
            asset.bytes.hash(&mut hasher);
            (asset.name, format!("W/\"{:016x}\"", hasher.finish()))
        })
        .collect()
    });
    let found = TAGS.iter().find(|(name, _)| *name == asset.name);
    found.map(|(_, tag)| tag.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(value: &'static str) -> HeaderMap {
        [(ACCEPT, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn browsers_get_the_page_and_programs_the_index() {
        for (accept, page) in [
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                true,
            ),
            ("TEXT/HTML", true),
            ("application/json;q=0.5, text/html", true),
            ("application/json, text/html;q=0.9", false),
            ("text/html;q=0", false),
            ("*/*", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(wants_page(&accepting(accept)), page, "{accept}");
        }
        assert!(!wants_page(&HeaderMap::new()));
    }

    #[test]
    fn every_file_of_the_folder_is_served_and_the_page_names_no_other() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/playground");
        let mut found: Vec<String> = fs_err::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != PAGE.name && name != "dev.mjs")
            .collect();
        found.sort();
        let mut served: Vec<&str> = ASSETS.iter().map(|asset| asset.name).collect();
        served.sort_unstable();
        assert_eq!(found, served);
        let page = std::str::from_utf8(PAGE.bytes).unwrap();
        for reference in page.split("playground/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(served.contains(&name), "{name}");
        }
        assert!(
            !page.contains("style=\"") && !page.contains("<style"),
            "the policy refuses it"
        );
    }

    #[test]
    fn the_page_is_small() {
        let bytes: usize = ASSETS.iter().chain([&PAGE]).map(|asset| asset.bytes.len()).sum();
        assert!(bytes < 200 * 1024, "{bytes} bytes before they are compressed");
    }

    #[test]
    fn who_has_a_file_is_told_so_in_a_line() {
        let first = PAGE.answer(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[CONTENT_TYPE], HTML);
        let tag = first.headers()[ETAG].clone();
        let again = |tag: HeaderValue| {
            PAGE.answer(&[(IF_NONE_MATCH, tag)].into_iter().collect())
                .status()
        };
        assert_eq!(again(tag), StatusCode::NOT_MODIFIED);
        assert_eq!(
            again(HeaderValue::from_static("\"x\", *")),
            StatusCode::NOT_MODIFIED
        );
        assert_eq!(again(HeaderValue::from_static("W/\"x\"")), StatusCode::OK);
    }
}
