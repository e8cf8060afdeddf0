//! `pentimento demo`: the real server on a free port, a real request over HTTP, and the pictures before and after.
//!
//! Everything is compiled in: the model, the photograph, the request. Nothing is fetched.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use image::RgbImage;
use indicatif::ProgressBar;
use pentimento_service::{InputLimits, image_codec};
use pentimento_types::read_regular;
use serde::Deserialize;
use serde_json::json;

use crate::args::DemoArgs;
use crate::commands::serve::{Server, StopSignals};
use crate::config::{AdminListen, Config, DeviceChoice, HttpConfig, may_open_browser};
use crate::telemetry::Telemetry;
use crate::{output, pictures};

/// A photograph of a red cup; see `tests/images/README.md` for its origin and licence.
const PHOTO: &[u8] = include_bytes!("../../../../tests/images/photo.png");

/// The request as the vendor's documentation has it, with the built-in model.
const ROUTE: &str = "/v3/lcm-img2img";
/// The vendor's.
const LIMITS: InputLimits = InputLimits {
    max_side: 2048,
    max_pixels: u64::MAX,
    max_bytes: 30_000_000,
};
const TIMEOUT: Duration = Duration::from_secs(300);

/// The part of the reply that the demo reads.
#[derive(Debug, Deserialize)]
struct Reply {
    images: Vec<ReplyImage>,
}

#[derive(Debug, Deserialize)]
struct ReplyImage {
    image_url: String,
}

/// Where everything is written.
#[derive(Debug)]
struct Files {
    before: PathBuf,
    after: PathBuf,
    both: PathBuf,
    request: PathBuf,
}

impl Files {
    fn within(folder: &Path) -> Self {
        Self {
            before: folder.join("before.png"),
            after: folder.join("after.png"),
            both: folder.join("side-by-side.png"),
            request: folder.join("request.json"),
        }
    }
}

/// Makes the pictures, then serves on unless `--once`.
pub(crate) async fn run(args: DemoArgs, config: Config, telemetry: &Telemetry) -> anyhow::Result<()> {
    let mut stop = StopSignals::listen()?;
    fs_err::create_dir_all(&args.out)?;
    let server = Server::start(&server_config(&args, config), telemetry).await?;
    let address = server.address();
    let shown = tokio::select! {
        shown = show(&args, address) => shown,
        () = stop.next() => Err(anyhow::anyhow!("stopped by the user")),
    };
    match shown {
        Ok(()) if !args.once => {
            output::line("");
            output::line(format_args!("listening on http://{address} (stop with Ctrl-C)"));
            if !args.no_open && may_open_browser() {
                open_browser(&format!("http://{address}/"));
            }
            server.serve_until(&mut stop).await.map(drop)
        }
        shown => {
            let stopped = server.stop(&mut stop).await.map(drop);
            shown.and(stopped)
        }
    }
}

/// Shows the playground. Whoever has no browser has the address.
fn open_browser(address: &str) {
    match open::that_detached(address) {
        Ok(()) => output::line("opening it in the browser (--no-open leaves that)"),
        Err(error) => output::note(format_args!("no browser could be opened: {error}")),
    }
}

/// The demo shows the built-in model on this machine only, whatever the settings say.
fn server_config(args: &DemoArgs, config: Config) -> Config {
    Config {
        http: HttpConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: None,
            trust_forwarded: false,
            cors_origins: None,
            allowed_hosts: Vec::new(),
            admin_listen: Some(AdminListen::None),
            keys: Vec::new(),
            ..config.http
        },
        models: None,
        // Entries of a catalogue.
        safety_model: None,
        prompt_enhancer: None,
        data: args.out.join("data"),
        device: DeviceChoice::Auto,
        ..config
    }
}

/// Sends the request, saves the pictures, and says what happened.
async fn show(args: &DemoArgs, address: SocketAddr) -> anyhow::Result<()> {
    let files = Files::within(&args.out);
    let photo = match &args.image {
        Some(path) => {
            read_regular(path, LIMITS.max_bytes).with_context(|| format!("cannot use {}", path.display()))?
        }
        None => PHOTO.to_vec(),
    };
    // As the server reads it: a photograph of a camera may be stored turned.
    let decoded = image_codec::decode(&photo, LIMITS).context("the picture cannot be used")?;
    let before = pictures::to_picture(&decoded)?;
    pictures::save_png(&before, &files.before)?;
    let body = request_body(args, &photo);
    fs_err::write(&files.request, serde_json::to_vec_pretty(&body)?)?;

    let url = format!("http://{address}{ROUTE}");
    let waiting = ProgressBar::new_spinner().with_message(format!("POST {url}"));
    waiting.enable_steady_tick(Duration::from_millis(100));
    let answer = ask(&url, &body).await;
    waiting.finish_and_clear();
    let (link, bytes) = answer?;
    let after = pictures::read(&bytes)?;
    fs_err::write(&files.after, &bytes)?;
    let both = pictures::side_by_side(&before, &after);
    pictures::save_png(&both, &files.both)?;
    if before.dimensions() != after.dimensions() {
        bail!(
            "the picture came back as {}, not as {}",
            dimensions(&after),
            dimensions(&before)
        );
    }
    if before == after && args.strength > 0.0 {
        bail!("the picture came back unchanged");
    }

    pictures::preview(&both);
    output::line(format_args!("prompt        {}", args.prompt));
    output::line(format_args!("before        {}", files.before.display()));
    output::line(format_args!("after         {}", files.after.display()));
    output::line(format_args!("side by side  {}", files.both.display()));
    output::line(format_args!("link          {link}"));
    output::line("");
    output::line("The same request by hand:");
    output::line(format_args!(
        "curl -s {url} -H 'Content-Type: application/json' -H 'Authorization: Bearer any' -d @{}",
        files.request.display()
    ));
    Ok(())
}

fn request_body(args: &DemoArgs, photo: &[u8]) -> serde_json::Value {
    json!({
        "model_name": "demo",
        "input_image": BASE64_STANDARD.encode(photo),
        "prompt": args.prompt,
        "negative_prompt": "",
        "sd_vae": "",
        "loras": [],
        "embeddings": [],
        "image_num": 1,
        "steps": 8,
        "seed": 123,
        "clip_skip": 1,
        "guidance_scale": 2.0,
        "strength": args.strength,
    })
}

/// The link to the finished picture, and its bytes.
async fn ask(url: &str, body: &serde_json::Value) -> anyhow::Result<(String, bytes::Bytes)> {
    // A proxy of the surroundings has nothing to do with an address on this machine.
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let response = client
        .post(url)
        .bearer_auth("demo")
        .json(body)
        .send()
        .await
        .context("the server did not answer")?;
    let status = response.status();
    let text = response.text().await?;
    if !status.is_success() {
        bail!("the server answered {status}: {text}");
    }
    let reply: Reply =
        serde_json::from_str(&text).with_context(|| format!("the reply is not as documented: {text}"))?;
    let link = reply
        .images
        .into_iter()
        .next()
        .context("the reply has no picture")?
        .image_url;
    let picture = client
        .get(&link)
        .send()
        .await?
        .error_for_status()
        .context("the link does not work")?;
    Ok((link, picture.bytes().await?))
}

fn dimensions(picture: &RgbImage) -> String {
    format!("{}x{}", picture.width(), picture.height())
}
