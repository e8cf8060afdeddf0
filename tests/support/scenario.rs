//! Scenarios: one YAML file each, with a request, what must come back, and where that is written.
//!
//! The request is the good one of `client::good_body` (of `client::good_modelslab_body` in the folder `modelslab`) with changes, or
//! a text, or bytes. In a body, `{$picture: NAME, as: SPELLING}` stands for a file in base64, `{$served: PATH}` for the
//! address of a file on a server of the test, and `{$repeat: TEXT, times: N}` for a long text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Reply, addresses, generate, get, good_body, good_modelslab_body, http, send};
use super::expect::differences;
use super::pictures;
use super::server::TestServer;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// What is shown, as a sentence.
    pub(crate) about: String,
    /// Where it comes from: a paragraph of the seed, a client, a row of the list of faults.
    pub(crate) source: String,
    #[serde(default)]
    request: Call,
    expect: Expectation,
    #[serde(skip)]
    dialect: Dialect,
}

/// Whose good request is changed, and how pictures are found in a reply. The folder says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Dialect {
    #[default]
    Novita,
    ModelsLab,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Put into the good body.
    #[serde(default)]
    change: BTreeMap<String, Value>,
    /// Taken out of the good body.
    #[serde(default)]
    remove: Vec<String>,
    /// Instead of the good body: this text.
    text: Option<String>,
    /// Instead of the good body: these bytes in hexadecimal.
    hex: Option<String>,
    /// Instead of the good body: before, N times the middle, after.
    built: Option<(String, String, usize, String)>,
    /// After the good body: this text.
    append: Option<String>,
    /// No body at all.
    #[serde(default)]
    no_body: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    status: u16,
    /// Each header must contain the text.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
    /// The body must not contain these.
    #[serde(default)]
    never: Vec<String>,
    pictures: Option<PicturesExpectation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PicturesExpectation {
    count: usize,
    width: u32,
    height: u32,
    format: String,
    /// A file that the result must equal but for what the VAE loses, and how far off it may be on average.
    like: Option<(String, f64)>,
}

impl Scenario {
    /// All files of a folder, by name.
    pub(crate) fn all(folder: &Path) -> Vec<(PathBuf, Self)> {
        let entries = fs_err::read_dir(folder).expect("the folder of the scenarios is there");
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.expect("it can be listed").path())
            .collect();
        files.retain(|file| file.extension().is_some_and(|ending| ending == "yaml"));
        files.sort();
        let read = |file: PathBuf| {
            let text = fs_err::read_to_string(&file).expect("the scenario can be read");
            let scenario = serde_yaml_ng::from_str(&text);
            let mut scenario: Self = scenario.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            if folder.ends_with("modelslab") {
                scenario.dialect = Dialect::ModelsLab;
            }
            (file, scenario)
        };
        files.into_iter().map(read).collect()
    }

    /// Runs it, and after it looks whether the server is well. Returns what is not as stated.
    pub(crate) async fn run(&self, server: &TestServer) -> Vec<String> {
        let reply = send(self.request(server)).await;
        let mut faults = self.check(&reply).await;
        let health = get(&format!("{}/healthz", server.base())).await;
        if health.status != 200 {
            faults.push(format!("afterwards /healthz answers {}", health.status));
        }
        if self.expect.status >= 400 || self.expect.body["status"] == "error" {
            let next = generate(server, &good_body()).await;
            if next.status != 200 {
                faults.push(format!(
                    "the next good request gets {}: {}",
                    next.status,
                    next.json()
                ));
            }
        }
        faults
    }

    fn request(&self, server: &TestServer) -> reqwest::RequestBuilder {
        let call = &self.request;
        let method: Method = call
            .method
            .as_deref()
            .unwrap_or("POST")
            .parse()
            .expect("a method");
        let path = call.path.as_deref().unwrap_or(match self.dialect {
            Dialect::Novita => "/v3/lcm-img2img",
            Dialect::ModelsLab => "/api/v1/enterprise/img2img",
        });
        let mut request = http().request(method.clone(), format!("{}{path}", server.base()));
        if method == Method::POST && !call.no_body {
            let good = match self.dialect {
                Dialect::Novita => good_body(),
                Dialect::ModelsLab => good_modelslab_body(),
            };
            request = request.body(call.body(good, server));
            if !call.headers.contains_key("content-type") {
                request = request.header("content-type", "application/json");
            }
        }
        for (name, value) in call.headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        request
    }

    async fn check(&self, reply: &Reply) -> Vec<String> {
        let mut faults = Vec::new();
        let text = String::from_utf8_lossy(&reply.body);
        if reply.status != self.expect.status {
            let shown: String = text.chars().take(400).collect();
            faults.push(format!(
                "status is {}, expected {}: {shown}",
                reply.status, self.expect.status
            ));
        }
        for (name, wanted) in &self.expect.headers {
            let found = reply
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            if !found.contains(wanted) {
                faults.push(format!("header {name} is {found:?}, expected {wanted:?} in it"));
            }
        }
        if !self.expect.body.is_null() {
            faults.extend(differences("reply", &self.expect.body, &reply.json()));
        }
        let forbidden = self
            .expect
            .never
            .iter()
            .filter(|word| text.contains(word.as_str()));
        faults.extend(forbidden.map(|word| format!("the reply contains {word:?}")));
        if let Some(expected) = &self.expect.pictures
            && faults.is_empty()
        {
            let found = reply.json();
            faults.extend(match self.dialect {
                Dialect::Novita => check_pictures(expected, &found).await,
                Dialect::ModelsLab => check_output(expected, &found).await,
            });
        }
        faults
    }
}

impl Call {
    fn body(&self, good: Value, server: &TestServer) -> Vec<u8> {
        if let Some(text) = &self.text {
            return text.replace("$served", server.served()).into_bytes();
        }
        if let Some((before, middle, times, after)) = &self.built {
            return format!("{before}{}{after}", middle.repeat(*times)).into_bytes();
        }
        if let Some(hex) = &self.hex {
            let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
            let pairs = digits
                .chunks(2)
                .map(|pair| str::from_utf8(pair).expect("hexadecimal digits"));
            return pairs
                .map(|pair| u8::from_str_radix(pair, 16).expect("pairs of digits"))
                .collect();
        }
        let mut body = good;
        for (name, value) in &self.change {
            body[name] = filled(value.clone(), server);
        }
        for name in &self.remove {
            body.as_object_mut()
                .expect("the good body is an object")
                .remove(name);
        }
        (body.to_string() + self.append.as_deref().unwrap_or_default()).into_bytes()
    }
}

/// Puts pictures and long texts where the file has only their description.
fn filled(value: Value, server: &TestServer) -> Value {
    match value {
        Value::Object(map) => {
            let word = |key: &str| map.get(key).and_then(Value::as_str);
            if let Some(name) = word("$picture") {
                return pictures::spelled(name, word("as").unwrap_or("plain")).into();
            }
            if let Some(path) = word("$served") {
                return format!("{}/{path}", server.served()).into();
            }
            if let Some(text) = word("$repeat") {
                let times = map
                    .get("times")
                    .and_then(Value::as_u64)
                    .expect("$repeat has a number of times");
                return text
                    .repeat(usize::try_from(times).expect("not that often"))
                    .into();
            }
            map.into_iter()
                .map(|(key, value)| (key, filled(value, server)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(|item| filled(item, server)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

async fn check_pictures(expected: &PicturesExpectation, reply: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    if reply["images"] != reply["image"] {
        faults.push("images and image differ".to_owned());
    }
    let addresses = addresses(reply);
    if addresses.len() != expected.count {
        faults.push(format!(
            "{} pictures, expected {}",
            addresses.len(),
            expected.count
        ));
    }
    for (at, address) in addresses.iter().enumerate() {
        let format = expected.format.as_str();
        if !address.ends_with(&format!("_{at}.{format}")) {
            faults.push(format!("the address {address} does not end in _{at}.{format}"));
        }
        let file = get(address).await;
        let kind = file
            .headers
            .get("content-type")
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        if file.status != 200
            || kind != format!("image/{format}")
            || reply["images"][at]["image_type"] != format
        {
            faults.push(format!("picture {at}: status {}, type {kind}", file.status));
            continue;
        }
        let guessed = image::guess_format(&file.body)
            .map(|found| found.extensions_str()[0])
            .unwrap_or("unknown");
        if guessed.replace("jpg", "jpeg") != format {
            faults.push(format!("picture {at} is a {guessed} file"));
        }
        let picture = pictures::decode(&file.body);
        if picture.dimensions() != (expected.width, expected.height) {
            faults.push(format!("picture {at} is {:?}", picture.dimensions()));
        } else if let Some((name, limit)) = &expected.like {
            let off = pictures::mean_difference(&picture, &pictures::decode(&pictures::bytes(name)));
            if off > *limit {
                faults.push(format!(
                    "picture {at} differs from {name} by {off:.2}/255 on average"
                ));
            }
        }
    }
    faults
}

/// The same for a reply of ModelsLab's dialect.
async fn check_output(expected: &PicturesExpectation, reply: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let output: Vec<&str> = reply["output"]
        .as_array()
        .map(|output| output.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if output.len() != expected.count {
        faults.push(format!("{} pictures, expected {}", output.len(), expected.count));
    }
    for (at, address) in output.iter().enumerate() {
        let prefix = reply["meta"]["file_prefix"].as_str().unwrap_or("?");
        if !address.ends_with(&format!("/{prefix}-{at}.{}", expected.format)) {
            faults.push(format!(
                "the address {address} does not end in {prefix}-{at}.{}",
                expected.format
            ));
        }
        let file = get(address).await;
        if file.status != 200 {
            faults.push(format!("picture {at}: status {}", file.status));
            continue;
        }
        let bytes = if expected.format.ends_with(".base64") {
            STANDARD.decode(&file.body).unwrap_or_default()
        } else {
            file.body.to_vec()
        };
        let Ok(picture) = image::load_from_memory(&bytes) else {
            faults.push(format!("picture {at} cannot be read"));
            continue;
        };
        let picture = picture.to_rgb8();
        if picture.dimensions() != (expected.width, expected.height) {
            faults.push(format!("picture {at} is {:?}", picture.dimensions()));
        } else if let Some((name, limit)) = &expected.like {
            let off = pictures::mean_difference(&picture, &pictures::decode(&pictures::bytes(name)));
            if off > *limit {
                faults.push(format!(
                    "picture {at} differs from {name} by {off:.2}/255 on average"
                ));
            }
        }
    }
    faults
}
