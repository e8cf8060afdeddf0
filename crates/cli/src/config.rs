//! The settings of one run, from flags, then `PENTIMENTO_*` variables, then the settings file, then defaults.
//!
//! The only place that reads the environment. Whatever is not understood is an error that says where it stands.

mod checks;
mod cluster;
mod error;
mod hub;
mod settings;
mod values;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pentimento_engine::DEFAULT_PROMPT_TOKENS;
use pentimento_kernels::Isa;
use pentimento_service::{KeyLimits, RateConfig};
use pentimento_storage::S3Config;
use url::Url;

use checks::{count, seconds};

use crate::reachable::reachable;

pub(crate) use cluster::{ClusterConfig, ClusterCredentials};
pub(crate) use error::ConfigError;
pub(crate) use hub::HubConfig;
pub(crate) use settings::{Environment, Settings};
pub(crate) use values::{
    AdminListen, ByteSize, Compliance, DeviceChoice, GpuMemory, ImagesLinks, IsaChoice, KeySetting,
    LogFormat, PrecisionChoice, SafetyChoice, Secret, WebhookSecretSetting,
};

const DEFAULT_FILE: &str = "pentimento.toml";
const DEFAULT_CATALOGUE: &str = "models.toml";
const DEFAULT_JOB_MEMORY: ByteSize = ByteSize(256 << 20);
const DEFAULT_DATA: &str = "pentimento-data";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TelemetryConfig {
    /// In the words of `tracing_subscriber::EnvFilter`.
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
    /// Where spans are sent; None is nowhere.
    pub(crate) otlp_endpoint: Option<Url>,
}

/// The HTTP side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpConfig {
    pub(crate) listen: SocketAddr,
    /// Where health checks are answered as well; None is the loopback address with the port after `listen`'s.
    pub(crate) admin_listen: Option<AdminListen>,
    pub(crate) public_url: Option<Url>,
    /// Whether a proxy in front sets `X-Forwarded-Proto` and `X-Forwarded-Host`.
    pub(crate) trust_forwarded: bool,
    /// Web pages that may call; None lets all of them where keys are configured.
    pub(crate) cors_origins: Option<Vec<String>>,
    /// Names in `Host` that are answered without keys, beside this machine's own.
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_address: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) body_timeout: Duration,
    /// How long a body or a reply may stand still.
    pub(crate) stall: Duration,
    /// How fast both must be on average.
    pub(crate) least_bytes_per_second: u32,
    /// Whether ModelsLab's errors have real HTTP statuses.
    pub(crate) modelslab_strict_http_status: bool,
    /// Whether ModelsLab's base64 results stand in the reply itself.
    pub(crate) modelslab_inline_base64: bool,
    /// Whether words are added to the prompts of a ModelsLab call that says nothing about it.
    pub(crate) modelslab_enhance_prompt: bool,
    /// How long a ModelsLab call waits for its pictures.
    pub(crate) modelslab_hold: Duration,
    /// Keys of callers, beside those of the data folder; none at all means that everybody who reaches the server may call.
    pub(crate) keys: Vec<KeySetting>,
    /// What a key may take that has no limits of its own.
    pub(crate) key_limits: KeyLimits,
    /// How often a caller may call whose key does not say it.
    pub(crate) rates: RateConfig,
}

impl HttpConfig {
    fn from_settings(settings: Settings) -> Result<Self, ConfigError> {
        if let Some(AdminListen::At(address)) = settings.admin_listen {
            checks::listen("admin_listen", address)?;
        }
        let connections = count(
            "max_connections",
            settings.max_connections,
            1024,
            checks::CONNECTIONS,
        )?;
        let speed = checks::number(
            "least_bytes_per_second",
            settings.least_bytes_per_second,
            1024,
            checks::SPEED,
        )?;
        Ok(Self {
            listen: checks::listen("listen", settings.listen.unwrap_or(DEFAULT_LISTEN))?,
            admin_listen: settings.admin_listen,
            public_url: checks::public_url(settings.public_url)?,
            trust_forwarded: settings.trust_forwarded.unwrap_or(false),
            cors_origins: checks::cors_origins(settings.cors_origins)?,
            allowed_hosts: checks::allowed_hosts(settings.allowed_hosts)?,
            max_connections: connections,
            max_connections_per_address: count(
                "max_connections_per_address",
                settings.max_connections_per_address,
                (connections as u64 / 2).max(1),
                1..=connections as u64,
            )?,
            header_timeout: seconds(
                "header_timeout_seconds",
                settings.header_timeout_seconds,
                30,
                checks::SHORT,
            )?,
            idle_timeout: seconds(
                "idle_timeout_seconds",
                settings.idle_timeout_seconds,
                75,
                checks::LONG,
            )?,
            body_timeout: seconds(
                "body_timeout_seconds",
                settings.body_timeout_seconds,
                300,
                checks::LONG,
            )?,
            stall: seconds("stall_seconds", settings.stall_seconds, 30, checks::SHORT)?,
            least_bytes_per_second: u32::try_from(speed).unwrap_or(u32::MAX),
            modelslab_strict_http_status: settings.modelslab_strict_http_status.unwrap_or(false),
            modelslab_inline_base64: settings.modelslab_inline_base64.unwrap_or(false),
            modelslab_enhance_prompt: settings.modelslab_enhance_prompt.unwrap_or(true),
            modelslab_hold: seconds(
                "modelslab_hold_seconds",
                settings.modelslab_hold_seconds,
                25,
                checks::HOLD,
            )?,
            keys: settings.keys.unwrap_or_default(),
            key_limits: KeyLimits {
                jobs_at_once: checks::rate("jobs_at_once", settings.jobs_at_once)?,
                requests_per_minute: checks::rate("requests_per_minute", settings.requests_per_minute)?,
            },
            rates: RateConfig {
                anonymous_requests_per_minute: checks::rate(
                    "anonymous_requests_per_minute",
                    settings.anonymous_requests_per_minute,
                )?,
                polls_per_minute: checks::rate("polls_per_minute", settings.polls_per_minute)?
                    .unwrap_or(RateConfig::new().polls_per_minute),
            },
        })
    }

    /// What somebody on the way can read along; None when nobody can, or a proxy in front encrypts.
    pub(crate) fn plain_text_warning(&self) -> Option<String> {
        let encrypted = self.trust_forwarded
            || self
                .public_url
                .as_ref()
                .is_some_and(|url| url.scheme() == "https");
        (!self.listen.ip().is_loopback() && !encrypted).then(|| {
            format!(
                "keys and pictures travel to {} unencrypted, because this server speaks no TLS; put a proxy that does in \
                 front and set --public-url https://..., or listen on 127.0.0.1 only",
                self.listen
            )
        })
    }
}

/// A running server, for the commands that ask one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientConfig {
    pub(crate) server: Url,
    pub(crate) key: Option<Secret>,
}

impl ClientConfig {
    /// Where nothing is said, the server of the same settings is meant.
    fn of(settings: &Settings) -> Result<Self, ConfigError> {
        let listen = settings.listen.unwrap_or(DEFAULT_LISTEN);
        let own = || {
            let address = reachable(listen);
            Url::parse(&format!("http://{address}")).expect("an address and a port make a URL")
        };
        let other = checks::server(settings.server.clone())?;
        // The settings' keys are for the settings' own server: another one must not learn them.
        let first = settings.keys.as_ref().and_then(|keys| keys.first());
        let first = first.filter(|_| other.is_none());
        let server = other.unwrap_or_else(own);
        Ok(Self {
            server,
            key: settings
                .key
                .clone()
                .or_else(|| first.map(|key| key.secret.clone())),
        })
    }
}

/// Everything that one run was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) http: HttpConfig,
    pub(crate) telemetry: TelemetryConfig,
    /// The catalogue; None is the built-in model only.
    pub(crate) models: Option<PathBuf>,
    /// The folder that the server owns.
    pub(crate) data: PathBuf,
    pub(crate) device: DeviceChoice,
    /// The numbers of the networks; None is 16 bits on a GPU and 32 on the processor.
    pub(crate) precision: Option<PrecisionChoice>,
    /// What may be used of a GPU's memory; None is 90 % of what is free.
    pub(crate) gpu_memory: Option<GpuMemory>,
    /// The instruction set of the kernels on a processor.
    pub(crate) isa: IsaChoice,
    /// How long a link to a finished picture works.
    pub(crate) link_ttl: Duration,
    /// How long a job may wait and run before it is given up.
    pub(crate) job_deadline: Duration,
    /// Whether images and webhooks may be at addresses inside this machine's networks.
    pub(crate) allow_private_urls: bool,
    /// What webhooks are signed with; None is the secret in the data folder.
    pub(crate) webhook_secret: Option<WebhookSecretSetting>,
    /// How long running jobs get when the server is told to stop.
    pub(crate) grace: Duration,
    /// Memory for weights; None is half of what the machine has.
    pub(crate) model_memory: Option<ByteSize>,
    /// How long a model that nobody uses stays in memory, where its entry does not say it; None is until the room is needed.
    pub(crate) model_keep_alive: Option<Duration>,
    /// Memory for decoded images; None is an eighth of what the machine has.
    pub(crate) image_memory: Option<ByteSize>,
    /// Memory for the bodies of all callers; None is a quarter of what the machine has.
    pub(crate) body_memory: Option<ByteSize>,
    /// Memory for the records of ended jobs.
    pub(crate) job_memory: ByteSize,
    /// Pixels of an image that is decoded.
    pub(crate) max_image_pixels: u64,
    /// Tokens of a prompt, and of a negative prompt.
    pub(crate) max_prompt_tokens: usize,
    /// Jobs that take turns on the device; with 1 each is done before the next begins.
    pub(crate) running_jobs: usize,
    /// Who decides whether finished pictures are looked at for unsafe content.
    pub(crate) safety_checker: SafetyChoice,
    /// Whether pictures say how they were made.
    pub(crate) write_parameters: bool,
    /// Whether they say that a trained network has made them.
    pub(crate) write_source_type: bool,
    /// Whether pixels get a watermark.
    pub(crate) compliance: Compliance,
    /// What pictures are signed with: the certificates, that of the key first, and the key; None leaves them unsigned.
    pub(crate) c2pa: Option<(PathBuf, PathBuf)>,
    /// The catalogue's entry of the reference safety checker; None is the small one inside the binary.
    pub(crate) safety_model: Option<String>,
    /// The catalogue's entry of a language model that adds words to prompts; None is the list inside the binary.
    pub(crate) prompt_enhancer: Option<String>,
    /// From which score on a picture is unsafe.
    pub(crate) safety_threshold_percent: u16,
    /// Where models are fetched from and kept.
    pub(crate) hub: HubConfig,
    /// The bucket for pictures; None is the data folder.
    pub(crate) images: Option<S3Config>,
    /// The machines that share jobs; None is this one alone.
    pub(crate) cluster: Option<ClusterConfig>,
    /// Whether this machine runs jobs.
    pub(crate) runs_jobs: bool,
    /// The server that is asked.
    pub(crate) client: ClientConfig,
    /// The settings file that was read.
    pub(crate) file: Option<PathBuf>,
}

impl Config {
    /// Puts the layers together. `file` is what `--config` says; without it, and without `PENTIMENTO_CONFIG`, a
    /// `pentimento.toml` in the working directory is read where there is one.
    pub(crate) fn load(
        flags: Settings,
        file: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let named = file.map(Path::to_owned).or_else(|| environment.config_file());
        let file = match named {
            Some(path) => Some(path),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.is_file()),
        };
        let from_file = match &file {
            Some(path) => Settings::from_file(path)?,
            None => Settings::default(),
        };
        let settings = flags.or(environment.settings()?).or(from_file);
        let hub = HubConfig::of(environment.hub())?;
        let images = checks::images(&settings, environment.aws())?;
        let config = Self::from_settings(settings, (hub, images), file)?;
        config.check_keys()?;
        Ok(config)
    }

    fn from_settings(
        settings: Settings,
        (hub, images): (HubConfig, Option<S3Config>),
        file: Option<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let catalogue = Some(PathBuf::from(DEFAULT_CATALOGUE)).filter(|path| path.is_file());
        let telemetry = TelemetryConfig {
            filter: settings
                .log
                .clone()
                .or_else(|| settings.default_log.clone())
                .unwrap_or_else(|| "info".to_owned()),
            format: settings.log_format.unwrap_or_default(),
            otlp_endpoint: checks::otlp_endpoint(settings.otlp_endpoint.clone())?,
        };
        Ok(Self {
            telemetry,
            models: settings.models.clone().or(catalogue),
            data: settings
                .data
                .clone()
                .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA)),
            device: checks::device(settings.device.clone(), settings.precision)?,
            precision: settings.precision,
            gpu_memory: checks::gpu_memory(settings.gpu_memory)?,
            isa: settings.isa.unwrap_or_default(),
            link_ttl: seconds(
                "link_ttl_seconds",
                settings.link_ttl_seconds,
                3600,
                checks::LINK_TTL,
            )?,
            job_deadline: seconds(
                "job_deadline_seconds",
                settings.job_deadline_seconds,
                checks::DAY,
                checks::JOB_DEADLINE,
            )?,
            allow_private_urls: settings.allow_private_urls.unwrap_or(false),
            webhook_secret: settings.webhook_secret.clone(),
            grace: seconds("grace_seconds", settings.grace_seconds, 30, checks::GRACE)?,
            model_memory: checks::memory("model_memory", settings.model_memory)?,
            model_keep_alive: settings
                .model_keep_alive_seconds
                .map(|value| seconds("model_keep_alive_seconds", Some(value), 0, checks::KEEP_ALIVE))
                .transpose()?,
            image_memory: checks::memory("image_memory", settings.image_memory)?,
            body_memory: checks::memory("body_memory", settings.body_memory)?,
            job_memory: checks::memory("job_memory", settings.job_memory)?.unwrap_or(DEFAULT_JOB_MEMORY),
            max_image_pixels: 1_000_000
                * checks::number(
                    "max_image_megapixels",
                    settings.max_image_megapixels,
                    64,
                    checks::MEGAPIXELS,
                )?,
            max_prompt_tokens: count(
                "max_prompt_tokens",
                settings.max_prompt_tokens,
                DEFAULT_PROMPT_TOKENS as u64,
                checks::PROMPT_TOKENS,
            )?,
            client: ClientConfig::of(&settings)?,
            running_jobs: count("running_jobs", settings.running_jobs, 128, checks::RUNNING_JOBS)?,
            cluster: cluster::cluster(&settings)?,
            runs_jobs: settings.runs_jobs.unwrap_or(true),
            safety_checker: settings.safety_checker.unwrap_or_default(),
            write_parameters: settings.write_parameters.unwrap_or(true),
            write_source_type: settings.write_source_type.unwrap_or(true),
            compliance: checks::compliance(settings.compliance, settings.write_source_type)?,
            c2pa: checks::c2pa(settings.c2pa_certificates.clone(), settings.c2pa_key.clone())?,
            safety_model: named(settings.safety_model.as_ref()),
            prompt_enhancer: named(settings.prompt_enhancer.as_ref()),
            safety_threshold_percent: checks::percent(
                "safety_threshold_percent",
                settings.safety_threshold_percent,
                70,
            )?,
            http: HttpConfig::from_settings(settings)?,
            hub,
            images,
            file,
        })
    }

    /// Two keys with one label could not be told apart in the jobs they own.
    fn check_keys(&self) -> Result<(), ConfigError> {
        for (index, key) in self.http.keys.iter().enumerate() {
            if self.http.keys[..index]
                .iter()
                .any(|other| other.label == key.label)
            {
                return Err(ConfigError::KeyLabelTwice {
                    label: key.label.clone(),
                });
            }
        }
        Ok(())
    }

    /// Makes the kernels use the chosen instruction set. To be called before anything computes.
    pub(crate) fn apply_isa(&self) -> Result<(), ConfigError> {
        match self.isa.name() {
            Some(isa) if !Isa::choose(isa) => Err(ConfigError::Isa {
                isa,
                available: Isa::available()
                    .iter()
                    .map(|isa| isa.to_string().to_lowercase())
                    .collect(),
            }),
            _ => Ok(()),
        }
    }

    /// A server without keys answers everybody who reaches it, so only this machine may reach it.
    pub(crate) fn check_exposure(&self, is_open: bool) -> Result<(), ConfigError> {
        if is_open && !self.http.listen.ip().is_loopback() {
            return Err(ConfigError::Exposed {
                listen: self.http.listen,
            });
        }
        if let Some(AdminListen::At(listen)) = self.http.admin_listen
            && is_open
            && !listen.ip().is_loopback()
        {
            return Err(ConfigError::AdminExposed { listen });
        }
        Ok(())
    }
}

/// Whether the standard output is a terminal in which colours make a picture.
pub(crate) fn terminal_shows_pictures() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that reads the environment"
    )]
    let (term, no_color) = (std::env::var_os("TERM"), std::env::var_os("NO_COLOR"));
    std::io::stdout().is_terminal() && no_color.is_none() && term.is_some_and(|name| name != "dumb")
}

/// Whether somebody sits in front of this process who would see a browser that it opens.
pub(crate) fn may_open_browser() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that reads the environment"
    )]
    let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && is_at_a_screen(has, cfg!(any(windows, target_os = "macos")))
}

/// `has` says which variables are set; `always` is for systems that have a screen without saying so.
fn is_at_a_screen(has: impl Fn(&str) -> bool, always: bool) -> bool {
    // A machine that builds, and a shell on a machine whose screen is somewhere else.
    let is_elsewhere = ["CI", "SSH_CONNECTION", "SSH_TTY"].iter().any(|name| has(name));
    let has_screen = always
        || ["DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"]
            .iter()
            .any(|name| has(name));
    has_screen && !is_elsewhere
}

/// A name that says something.
fn named(name: Option<&String>) -> Option<String> {
    name.filter(|name| !name.trim().is_empty()).cloned()
}

#[cfg(test)]
mod tests;
