//! One request to a hub or another server, with its redirects, and what its answer means.
//!
//! Redirects are followed here and not by the HTTP library, because the first answer says what the file is, and because
//! the token must not travel to the network of servers that really has the files.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE,
    LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::{HubError, HubSettings, Token};

const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The description of a repository with ten thousands of files fits.
const LARGEST_LISTING: usize = 16 << 20;
/// How much of a hub's own words is repeated.
const LONGEST_MESSAGE: usize = 200;
const USER_AGENT: &str = concat!("pentimento/", env!("CARGO_PKG_VERSION"));

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    token: Option<Token>,
}

/// What a file on a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    /// The commit it was found at; None elsewhere than at a hub.
    pub(crate) commit: Option<String>,
    pub(crate) size: u64,
    /// What a hub calls these bytes.
    pub(crate) etag: Option<String>,
}

/// The files of a repository at one commit.
#[derive(Debug, Deserialize)]
pub(crate) struct RepositoryInfo {
    #[serde(rename = "sha")]
    pub(crate) commit: String,
    #[serde(default)]
    pub(crate) siblings: Vec<Sibling>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub(crate) struct Sibling {
    #[serde(rename = "rfilename")]
    pub(crate) path: String,
    pub(crate) size: Option<u64>,
}

/// A failed request, and whether the same may work soon.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: HubError,
    pub(crate) again: Again,
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    Soon,
    /// As the server has said.
    After(Duration),
}

impl From<HubError> for Failed {
    fn from(error: HubError) -> Self {
        Self {
            error,
            again: Again::Never,
        }
    }
}

/// The bytes of a file from some position on.
#[derive(Debug)]
pub(crate) struct OpenedFile {
    pub(crate) response: Response,
    /// Where its bytes begin.
    pub(crate) start: u64,
    /// All bytes of the file, where the server says it.
    pub(crate) size: Option<u64>,
    /// What the server calls these bytes, when it is sure of every one of them.
    pub(crate) strong_etag: Option<String>,
}

/// From where on a file is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) start: u64,
    /// Only if it is still this one.
    pub(crate) if_range: Option<&'a str>,
}

impl Client {
    pub(crate) fn new(settings: &HubSettings) -> Result<Self, HubError> {
        let roots = rustls::RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows the default protocols")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let builder = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(settings.silence);
        let builder = if settings.system_proxy {
            builder
        } else {
            builder.no_proxy()
        };
        Ok(Self {
            http: builder.build().map_err(HubError::Client)?,
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
        })
    }

    /// The address of a file in a repository.
    pub(crate) fn file_address(&self, repo: &str, revision: &str, path: &str) -> Url {
        let mut address = self.endpoint.clone();
        extend(
            &mut address,
            repo.split('/')
                .chain(["resolve", revision])
                .chain(path.split('/')),
        );
        address
    }

    /// The files of a repository.
    pub(crate) async fn repository(&self, repo: &str, revision: &str) -> Result<RepositoryInfo, Failed> {
        let mut address = self.endpoint.clone();
        let parts = ["api", "models"].into_iter().chain(repo.split('/'));
        extend(&mut address, parts.chain(["revision", revision]));
        address.set_query(Some("blobs=true"));
        let asked = Asked::Repository { repo, revision };
        let request = Request {
            method: Method::GET,
            address,
            headers: HeaderMap::new(),
            follow: Follow::All,
        };
        let response = self.send(request, &mut None).await?;
        let mut response = checked(response, &asked)?;
        let host = host_of(response.url());
        let nonsense = |problem: String| HubError::Nonsense {
            host: host.clone(),
            problem,
        };
        let mut body = Vec::new();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| unreachable(&host, error))?
        {
            if body.len() + piece.len() > LARGEST_LISTING {
                return Err(nonsense("the list of files is too long".to_owned()).into());
            }
            body.extend_from_slice(&piece);
        }
        let info: RepositoryInfo =
            serde_json::from_slice(&body).map_err(|error| nonsense(format!("no list of files ({error})")))?;
        if !is_commit(&info.commit) {
            return Err(nonsense("a commit that is none".to_owned()).into());
        }
        Ok(info)
    }

    /// What a file in a repository is, without its bytes.
    pub(crate) async fn look_at(&self, repo: &str, revision: &str, path: &str) -> Result<RemoteFile, Failed> {
        let address = self.file_address(repo, revision, path);
        let asked = Asked::File { repo, revision, path };
        let request = Request {
            method: Method::HEAD,
            address,
            headers: HeaderMap::new(),
            follow: Follow::WithinHost,
        };
        let mut commit = None;
        let response = self.send(request, &mut commit).await?;
        // A redirect to another host is an answer: its headers say all of it.
        let response = if response.status().is_redirection() {
            response
        } else {
            checked(response, &asked)?
        };
        let headers = response.headers();
        let size = text(headers, "x-linked-size").or_else(|| text(headers, CONTENT_LENGTH.as_str()));
        let size = size.and_then(|size| size.parse().ok());
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, ETAG.as_str()));
        let nonsense = |problem: &str| HubError::Nonsense {
            host: host_of(response.url()),
            problem: problem.to_owned(),
        };
        Ok(RemoteFile {
            commit,
            size: size.ok_or_else(|| nonsense("a file without its size"))?,
            etag: etag.map(|etag| unquoted(&etag).to_owned()),
        })
    }

    /// Begins to read a file.
    pub(crate) async fn open(
        &self,
        address: &Url,
        asked: &Asked<'_>,
        from: Part<'_>,
    ) -> Result<OpenedFile, Failed> {
        let mut headers = HeaderMap::new();
        if from.start > 0 {
            let range = format!("bytes={}-", from.start);
            headers.insert(RANGE, range.parse().expect("it is ASCII"));
            if let Some(etag) = from.if_range.and_then(|etag| etag.parse().ok()) {
                headers.insert(IF_RANGE, etag);
            }
        }
        let request = Request {
            method: Method::GET,
            address: address.clone(),
            headers,
            follow: Follow::All,
        };
        let response = self.send(request, &mut None).await?;
        let response = checked(response, asked)?;
        let etag = text(response.headers(), ETAG.as_str()).filter(|etag| !etag.starts_with("W/"));
        let (start, size) = if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = text(response.headers(), CONTENT_RANGE.as_str());
            range
                .as_deref()
                .and_then(content_range)
                .ok_or_else(|| HubError::Nonsense {
                    host: host_of(response.url()),
                    problem: "a part of a file without saying which".to_owned(),
                })?
        } else {
            (0, response.content_length())
        };
        Ok(OpenedFile {
            response,
            start,
            size,
            strong_etag: etag,
        })
    }

    /// One request with its redirects. `commit` becomes what any of the answers says of it.
    async fn send(&self, asked: Request, commit: &mut Option<String>) -> Result<Response, Failed> {
        let Request {
            method,
            mut address,
            mut headers,
            follow,
        } = asked;
        // A length that is announced is that of the bytes themselves.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for _ in 0..=MAX_REDIRECTS {
            let request = self.http.request(method.clone(), address.clone());
            let mut request = request.headers(headers.clone());
            let token = self.token.as_ref();
            if let Some(token) = token.filter(|_| same_origin(&address, &self.endpoint)) {
                request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
            }
            let response = request.send().await;
            let response = response.map_err(|error| unreachable(&host_of(&address), error))?;
            let its_commit = text(response.headers(), "x-repo-commit");
            *commit = its_commit.filter(|text| is_commit(text)).or(commit.take());
            let Some(next) = redirect_of(&response) else {
                return Ok(response);
            };
            if next.scheme() != "https" && next.scheme() != address.scheme() {
                return Err(nonsense_redirect(&address).into());
            }
            if follow == Follow::WithinHost && !same_origin(&next, &address) {
                return Ok(response);
            }
            address = next;
        }
        Err(nonsense_redirect(&address).into())
    }
}

/// What is sent.
struct Request {
    method: Method,
    address: Url,
    headers: HeaderMap,
    follow: Follow,
}

/// Which redirects are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follow {
    All,
    WithinHost,
}

/// What was asked for, to say what is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    Repository {
        repo: &'a str,
        revision: &'a str,
    },
    File {
        repo: &'a str,
        revision: &'a str,
        path: &'a str,
    },
    /// Of an `https:` source.
    Elsewhere {
        path: &'a str,
    },
}

/// The response, when it is a success.
fn checked(response: Response, asked: &Asked<'_>) -> Result<Response, Failed> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let headers = response.headers();
    let code = text(headers, "x-error-code");
    let repository = match asked {
        Asked::Repository { repo, revision } | Asked::File { repo, revision, .. } => Some((*repo, *revision)),
        Asked::Elsewhere { .. } => None,
    };
    let known = repository.and_then(|(repo, revision)| {
        let (repo, revision) = (repo.to_owned(), revision.to_owned());
        match (code.as_deref(), status.as_u16()) {
            (Some("DisabledRepo"), _) => Some(HubError::Disabled { repo }),
            (Some("RevisionNotFound"), _) => Some(HubError::NoRevision { repo, revision }),
            (Some("GatedRepo"), _) | (None, 403) => Some(HubError::Gated { repo }),
            (Some("RepoNotFound"), _) | (None, 401) => Some(HubError::NoRepository { repo }),
            (Some("EntryNotFound"), _) | (None, 404) => Some(match asked {
                Asked::File { path, .. } => HubError::NoFile {
                    place: repo,
                    file: (*path).to_owned(),
                },
                Asked::Repository { .. } | Asked::Elsewhere { .. } => HubError::NoRepository { repo },
            }),
            _ => None,
        }
    });
    if let Some(error) = known {
        return Err(error.into());
    }
    let host = host_of(response.url());
    if let (Asked::Elsewhere { path }, 404 | 410) = (asked, status.as_u16()) {
        let file = (*path).to_owned();
        return Err(HubError::NoFile { place: host, file }.into());
    }
    let again = match status.as_u16() {
        408 | 429 | 500..=599 => again_after(headers),
        _ => Again::Never,
    };
    let error = HubError::Status {
        host,
        status: status.as_u16(),
        message: text(headers, "x-error-message").map(|message| shown(&message)),
    };
    Err(Failed { error, again })
}

fn again_after(headers: &HeaderMap) -> Again {
    let seconds = text(headers, RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
    seconds.map_or(Again::Soon, |seconds| Again::After(Duration::from_secs(seconds)))
}

fn unreachable(host: &str, source: reqwest::Error) -> Failed {
    Failed {
        error: HubError::Unreachable {
            host: host.to_owned(),
            source: source.without_url(),
        },
        again: Again::Soon,
    }
}

/// The error of a body that breaks off.
pub(crate) fn broken_off(address: &Url, source: reqwest::Error) -> Failed {
    unreachable(&host_of(address), source)
}

fn nonsense_redirect(address: &Url) -> HubError {
    HubError::Nonsense {
        host: host_of(address),
        problem: "a redirect that leads nowhere".to_owned(),
    }
}

fn redirect_of(response: &Response) -> Option<Url> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = text(response.headers(), LOCATION.as_str()).filter(|_| redirects)?;
    let next = response.url().join(&location).ok()?;
    matches!(next.scheme(), "http" | "https").then_some(next)
}

/// Adds parts to the path of an address. A part that says where to go is no name; none comes from a hub unchecked.
fn extend<'a>(address: &mut Url, parts: impl IntoIterator<Item = &'a str>) {
    if let Ok(mut path) = address.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
}

fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// Who answers, without user, path and query.
pub(crate) fn host_of(address: &Url) -> String {
    address.host_str().unwrap_or("the hub").to_owned()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn unquoted(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

/// `bytes 100-199/200`, `bytes 100-199/*`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, size.parse().ok()))
}

fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn shown(message: &str) -> String {
    let clean = message.chars().filter(|c| !c.is_control());
    clean.take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn ranges_and_etags_are_read() {
        assert_eq!(content_range("bytes 100-199/200"), Some((100, Some(200))));
        assert_eq!(content_range("bytes 100-199/*"), Some((100, None)));
        for wrong in ["", "bytes", "items 0-1/2", "bytes x-1/2", "bytes 5/6"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
        assert_eq!(unquoted("W/\"abc\""), "abc");
        assert_eq!(unquoted("abc"), "abc");
    }

    #[test]
    fn a_revision_with_a_slash_is_one_part_of_the_address() {
        let mut address = Url::parse("https://hub.example/base/").unwrap();
        extend(&mut address, ["a", "b", "resolve", "refs/pr/1", "x y.bin"]);
        assert_eq!(
            address.as_str(),
            "https://hub.example/base/a/b/resolve/refs%2Fpr%2F1/x%20y.bin"
        );
    }
}
