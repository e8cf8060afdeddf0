//! One layer of settings: all optional, and the same for flags, variables and the file.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use pentimento_types::read_regular;
use serde::Deserialize;
use url::Url;

use super::hub::HubVariables;
use super::{
    AdminListen, ByteSize, Compliance, ConfigError, DeviceChoice, GpuMemory, ImagesLinks, IsaChoice,
    KeySetting, LogFormat, PrecisionChoice, SafetyChoice, Secret, WebhookSecretSetting,
};

/// No settings file comes near it.
const LARGEST_FILE: u64 = 1 << 20;

const PREFIX: &str = "PENTIMENTO_";
const AWS_PREFIX: &str = "AWS_";
const CONFIG_VARIABLE: &str = "PENTIMENTO_CONFIG";
/// Variables that steer the project's own tests; the server does not look at them.
const TEST_PREFIX: &str = "PENTIMENTO_TEST_";

/// What one layer says; None is nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) server: Option<Url>,
    pub(crate) key: Option<Secret>,
    pub(crate) images: Option<String>,
    pub(crate) images_links: Option<ImagesLinks>,
    pub(crate) cluster: Option<Vec<Url>>,
    pub(crate) cluster_token: Option<Secret>,
    pub(crate) cluster_token_file: Option<PathBuf>,
    pub(crate) cluster_nkey_file: Option<PathBuf>,
    pub(crate) cluster_credentials: Option<PathBuf>,
    pub(crate) cluster_ca: Option<PathBuf>,
    pub(crate) cluster_name: Option<String>,
    pub(crate) cluster_replicas: Option<u64>,
    pub(crate) cluster_streams: Option<u64>,
    pub(crate) cluster_lease_seconds: Option<u64>,
    pub(crate) runs_jobs: Option<bool>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) admin_listen: Option<AdminListen>,
    pub(crate) models: Option<PathBuf>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) device: Option<DeviceChoice>,
    pub(crate) precision: Option<PrecisionChoice>,
    pub(crate) gpu_memory: Option<GpuMemory>,
    pub(crate) isa: Option<IsaChoice>,
    pub(crate) public_url: Option<Url>,
    pub(crate) trust_forwarded: Option<bool>,
    pub(crate) cors_origins: Option<Vec<String>>,
    pub(crate) allowed_hosts: Option<Vec<String>>,
    pub(crate) max_connections: Option<u64>,
    pub(crate) max_connections_per_address: Option<u64>,
    pub(crate) header_timeout_seconds: Option<u64>,
    pub(crate) idle_timeout_seconds: Option<u64>,
    pub(crate) body_timeout_seconds: Option<u64>,
    pub(crate) stall_seconds: Option<u64>,
    pub(crate) least_bytes_per_second: Option<u64>,
    pub(crate) keys: Option<Vec<KeySetting>>,
    pub(crate) webhook_secret: Option<WebhookSecretSetting>,
    pub(crate) jobs_at_once: Option<u64>,
    pub(crate) requests_per_minute: Option<u64>,
    pub(crate) anonymous_requests_per_minute: Option<u64>,
    pub(crate) polls_per_minute: Option<u64>,
    pub(crate) link_ttl_seconds: Option<u64>,
    pub(crate) job_deadline_seconds: Option<u64>,
    pub(crate) allow_private_urls: Option<bool>,
    pub(crate) modelslab_strict_http_status: Option<bool>,
    pub(crate) modelslab_inline_base64: Option<bool>,
    pub(crate) modelslab_enhance_prompt: Option<bool>,
    pub(crate) modelslab_hold_seconds: Option<u64>,
    pub(crate) grace_seconds: Option<u64>,
    pub(crate) model_memory: Option<ByteSize>,
    pub(crate) model_keep_alive_seconds: Option<u64>,
    pub(crate) image_memory: Option<ByteSize>,
    pub(crate) body_memory: Option<ByteSize>,
    pub(crate) job_memory: Option<ByteSize>,
    pub(crate) max_image_megapixels: Option<u64>,
    pub(crate) max_prompt_tokens: Option<u64>,
    pub(crate) running_jobs: Option<u64>,
    pub(crate) safety_checker: Option<SafetyChoice>,
    pub(crate) safety_model: Option<String>,
    pub(crate) write_parameters: Option<bool>,
    pub(crate) write_source_type: Option<bool>,
    pub(crate) compliance: Option<Compliance>,
    pub(crate) c2pa_certificates: Option<PathBuf>,
    pub(crate) c2pa_key: Option<PathBuf>,
    pub(crate) prompt_enhancer: Option<String>,
    pub(crate) safety_threshold_percent: Option<u64>,
    pub(crate) log: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) otlp_endpoint: Option<Url>,
    /// What the command logs when nobody says anything; below every layer.
    #[serde(skip)]
    pub(crate) default_log: Option<String>,
}

impl Settings {
    /// Nothing but a command's own default for the log.
    pub(crate) fn with_default_log(filter: &str) -> Self {
        Self {
            default_log: Some(filter.to_owned()),
            ..Self::default()
        }
    }

    /// What this layer says, and where it says nothing, what the lower one says.
    pub(crate) fn or(self, lower: Self) -> Self {
        Self {
            server: self.server.or(lower.server),
            key: self.key.or(lower.key),
            images: self.images.or(lower.images),
            images_links: self.images_links.or(lower.images_links),
            cluster: self.cluster.or(lower.cluster),
            cluster_token: self.cluster_token.or(lower.cluster_token),
            cluster_token_file: self.cluster_token_file.or(lower.cluster_token_file),
            cluster_nkey_file: self.cluster_nkey_file.or(lower.cluster_nkey_file),
            cluster_credentials: self.cluster_credentials.or(lower.cluster_credentials),
            cluster_ca: self.cluster_ca.or(lower.cluster_ca),
            cluster_name: self.cluster_name.or(lower.cluster_name),
            cluster_replicas: self.cluster_replicas.or(lower.cluster_replicas),
            cluster_streams: self.cluster_streams.or(lower.cluster_streams),
            cluster_lease_seconds: self.cluster_lease_seconds.or(lower.cluster_lease_seconds),
            runs_jobs: self.runs_jobs.or(lower.runs_jobs),
            listen: self.listen.or(lower.listen),
            admin_listen: self.admin_listen.or(lower.admin_listen),
            models: self.models.or(lower.models),
            data: self.data.or(lower.data),
            device: self.device.or(lower.device),
            precision: self.precision.or(lower.precision),
            gpu_memory: self.gpu_memory.or(lower.gpu_memory),
            isa: self.isa.or(lower.isa),
            public_url: self.public_url.or(lower.public_url),
            trust_forwarded: self.trust_forwarded.or(lower.trust_forwarded),
            cors_origins: self.cors_origins.or(lower.cors_origins),
            allowed_hosts: self.allowed_hosts.or(lower.allowed_hosts),
            max_connections: self.max_connections.or(lower.max_connections),
            max_connections_per_address: self
                .max_connections_per_address
                .or(lower.max_connections_per_address),
            header_timeout_seconds: self.header_timeout_seconds.or(lower.header_timeout_seconds),
            idle_timeout_seconds: self.idle_timeout_seconds.or(lower.idle_timeout_seconds),
            body_timeout_seconds: self.body_timeout_seconds.or(lower.body_timeout_seconds),
            stall_seconds: self.stall_seconds.or(lower.stall_seconds),
            least_bytes_per_second: self.least_bytes_per_second.or(lower.least_bytes_per_second),
            keys: self.keys.or(lower.keys),
            webhook_secret: self.webhook_secret.or(lower.webhook_secret),
            jobs_at_once: self.jobs_at_once.or(lower.jobs_at_once),
            requests_per_minute: self.requests_per_minute.or(lower.requests_per_minute),
            anonymous_requests_per_minute: self
                .anonymous_requests_per_minute
                .or(lower.anonymous_requests_per_minute),
            polls_per_minute: self.polls_per_minute.or(lower.polls_per_minute),
            link_ttl_seconds: self.link_ttl_seconds.or(lower.link_ttl_seconds),
            job_deadline_seconds: self.job_deadline_seconds.or(lower.job_deadline_seconds),
            allow_private_urls: self.allow_private_urls.or(lower.allow_private_urls),
            modelslab_strict_http_status: self
                .modelslab_strict_http_status
                .or(lower.modelslab_strict_http_status),
            modelslab_inline_base64: self.modelslab_inline_base64.or(lower.modelslab_inline_base64),
            modelslab_enhance_prompt: self.modelslab_enhance_prompt.or(lower.modelslab_enhance_prompt),
            modelslab_hold_seconds: self.modelslab_hold_seconds.or(lower.modelslab_hold_seconds),
            grace_seconds: self.grace_seconds.or(lower.grace_seconds),
            model_memory: self.model_memory.or(lower.model_memory),
            model_keep_alive_seconds: self.model_keep_alive_seconds.or(lower.model_keep_alive_seconds),
            image_memory: self.image_memory.or(lower.image_memory),
            body_memory: self.body_memory.or(lower.body_memory),
            job_memory: self.job_memory.or(lower.job_memory),
            max_image_megapixels: self.max_image_megapixels.or(lower.max_image_megapixels),
            max_prompt_tokens: self.max_prompt_tokens.or(lower.max_prompt_tokens),
            running_jobs: self.running_jobs.or(lower.running_jobs),
            safety_checker: self.safety_checker.or(lower.safety_checker),
            safety_model: self.safety_model.or(lower.safety_model),
            write_parameters: self.write_parameters.or(lower.write_parameters),
            write_source_type: self.write_source_type.or(lower.write_source_type),
            compliance: self.compliance.or(lower.compliance),
            c2pa_certificates: self.c2pa_certificates.or(lower.c2pa_certificates),
            c2pa_key: self.c2pa_key.or(lower.c2pa_key),
            prompt_enhancer: self.prompt_enhancer.or(lower.prompt_enhancer),
            safety_threshold_percent: self.safety_threshold_percent.or(lower.safety_threshold_percent),
            log: self.log.or(lower.log),
            log_format: self.log_format.or(lower.log_format),
            otlp_endpoint: self.otlp_endpoint.or(lower.otlp_endpoint),
            default_log: self.default_log.or(lower.default_log),
        }
    }

    /// Reads a settings file, which must be a regular one. Relative paths in it start at its own folder.
    pub(super) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let bytes =
            read_regular(path, LARGEST_FILE).map_err(|fault| unreadable(std::io::Error::other(fault)))?;
        let text = String::from_utf8(bytes).map_err(|error| unreadable(std::io::Error::other(error)))?;
        let mut settings = Self::from_text(&text, path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let places = [
            &mut settings.models,
            &mut settings.data,
            &mut settings.c2pa_certificates,
            &mut settings.c2pa_key,
            &mut settings.cluster_token_file,
            &mut settings.cluster_nkey_file,
            &mut settings.cluster_credentials,
            &mut settings.cluster_ca,
        ];
        for place in places.into_iter().flatten() {
            *place = folder.join(&place);
        }
        Ok(settings)
    }

    fn from_text(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
            // `message` quotes no line of the file, which may hold a secret.
            ConfigError::File {
                path: path.to_owned(),
                line,
                problem: error.message().to_owned(),
            }
        })
    }
}

/// The variables of the process that mean something here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: Vec<(String, OsString)>,
    /// Those that every client of a hub reads.
    hub: HubVariables,
    /// Those that every client of AWS reads.
    aws: Vec<(String, String)>,
}

impl Environment {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        let all = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self::of_variables(all)
    }

    fn of_variables(all: impl Iterator<Item = (String, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in all {
            if name.starts_with(PREFIX) && !name.starts_with(TEST_PREFIX) {
                environment.variables.push((name, value));
            } else if name.starts_with(AWS_PREFIX) {
                environment
                    .aws
                    .extend(value.into_string().ok().map(|value| (name, value)));
            } else {
                environment.hub.add(&name, value);
            }
        }
        environment
    }

    /// Made-up ones.
    #[cfg(test)]
    pub(super) fn of(variables: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(value));
        Self::of_variables(variables.iter().map(own))
    }

    pub(super) const fn hub(&self) -> &HubVariables {
        &self.hub
    }

    pub(super) fn aws(&self) -> &[(String, String)] {
        &self.aws
    }

    /// The settings file that a variable names.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        self.variables
            .iter()
            .find(|(name, _)| name == CONFIG_VARIABLE)
            .map(|(_, value)| PathBuf::from(value))
    }

    /// What the variables say. A variable with our prefix that is no setting is most likely a slip.
    pub(super) fn settings(&self) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        for (name, value) in &self.variables {
            if name == CONFIG_VARIABLE {
                continue;
            }
            let value = value.to_str().ok_or_else(|| problem(name, "it is not UTF-8"))?;
            settings.read_variable(name, value)?;
        }
        Ok(settings)
    }
}

impl Settings {
    pub(super) const VARIABLES: &'static [&'static str] = &[
        "SERVER",
        "KEY",
        "IMAGES",
        "IMAGES_LINKS",
        "CLUSTER",
        "CLUSTER_TOKEN",
        "CLUSTER_TOKEN_FILE",
        "CLUSTER_NKEY_FILE",
        "CLUSTER_CREDENTIALS",
        "CLUSTER_CA",
        "CLUSTER_NAME",
        "CLUSTER_REPLICAS",
        "CLUSTER_STREAMS",
        "CLUSTER_LEASE_SECONDS",
        "RUNS_JOBS",
        "LISTEN",
        "ADMIN_LISTEN",
        "MODELS",
        "DATA",
        "DEVICE",
        "PRECISION",
        "GPU_MEMORY",
        "ISA",
        "PUBLIC_URL",
        "TRUST_FORWARDED",
        "CORS_ORIGINS",
        "ALLOWED_HOSTS",
        "MAX_CONNECTIONS",
        "MAX_CONNECTIONS_PER_ADDRESS",
        "HEADER_TIMEOUT_SECONDS",
        "IDLE_TIMEOUT_SECONDS",
        "BODY_TIMEOUT_SECONDS",
        "STALL_SECONDS",
        "LEAST_BYTES_PER_SECOND",
        "KEYS",
        "WEBHOOK_SECRET",
        "JOBS_AT_ONCE",
        "REQUESTS_PER_MINUTE",
        "ANONYMOUS_REQUESTS_PER_MINUTE",
        "POLLS_PER_MINUTE",
        "LINK_TTL_SECONDS",
        "JOB_DEADLINE_SECONDS",
        "ALLOW_PRIVATE_URLS",
        "MODELSLAB_STRICT_HTTP_STATUS",
        "MODELSLAB_INLINE_BASE64",
        "MODELSLAB_ENHANCE_PROMPT",
        "MODELSLAB_HOLD_SECONDS",
        "GRACE_SECONDS",
        "MODEL_MEMORY",
        "MODEL_KEEP_ALIVE_SECONDS",
        "IMAGE_MEMORY",
        "BODY_MEMORY",
        "JOB_MEMORY",
        "MAX_IMAGE_MEGAPIXELS",
        "MAX_PROMPT_TOKENS",
        "RUNNING_JOBS",
        "SAFETY_CHECKER",
        "SAFETY_MODEL",
        "PROMPT_ENHANCER",
        "COMPLIANCE",
        "C2PA_CERTIFICATES",
        "C2PA_KEY",
        "WRITE_PARAMETERS",
        "WRITE_SOURCE_TYPE",
        "SAFETY_THRESHOLD_PERCENT",
        "LOG",
        "LOG_FORMAT",
        "OTLP_ENDPOINT",
    ];

    #[expect(clippy::too_many_lines, reason = "a table, of which each line is a setting")]
    fn read_variable(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        match name.strip_prefix(PREFIX).unwrap_or(name) {
            "SERVER" => self.server = Some(parsed(name, value)?),
            "KEY" => self.key = Some(parsed(name, value)?),
            "IMAGES" => self.images = Some(value.to_owned()),
            "IMAGES_LINKS" => self.images_links = Some(chosen(name, value)?),
            "CLUSTER" => {
                self.cluster = Some(
                    listed(value)
                        .map(|server| parsed(name, server))
                        .collect::<Result<_, _>>()?,
                )
            }
            "CLUSTER_TOKEN" => self.cluster_token = Some(parsed(name, value)?),
            "CLUSTER_TOKEN_FILE" => self.cluster_token_file = Some(value.into()),
            "CLUSTER_NKEY_FILE" => self.cluster_nkey_file = Some(value.into()),
            "CLUSTER_CREDENTIALS" => self.cluster_credentials = Some(value.into()),
            "CLUSTER_CA" => self.cluster_ca = Some(value.into()),
            "CLUSTER_NAME" => self.cluster_name = Some(value.to_owned()),
            "CLUSTER_REPLICAS" => self.cluster_replicas = Some(parsed(name, value)?),
            "CLUSTER_STREAMS" => self.cluster_streams = Some(parsed(name, value)?),
            "CLUSTER_LEASE_SECONDS" => self.cluster_lease_seconds = Some(parsed(name, value)?),
            "RUNS_JOBS" => self.runs_jobs = Some(parsed(name, value)?),
            "LISTEN" => self.listen = Some(parsed(name, value)?),
            "ADMIN_LISTEN" => self.admin_listen = Some(parsed(name, value)?),
            "MODELS" => self.models = Some(value.into()),
            "DATA" => self.data = Some(value.into()),
            "DEVICE" => self.device = Some(parsed(name, value)?),
            "PRECISION" => self.precision = Some(chosen(name, value)?),
            "GPU_MEMORY" => self.gpu_memory = Some(parsed(name, value)?),
            "ISA" => self.isa = Some(chosen(name, value)?),
            "PUBLIC_URL" => self.public_url = Some(parsed(name, value)?),
            "TRUST_FORWARDED" => self.trust_forwarded = Some(parsed(name, value)?),
            "CORS_ORIGINS" => self.cors_origins = Some(listed(value).map(str::to_owned).collect()),
            "ALLOWED_HOSTS" => self.allowed_hosts = Some(listed(value).map(str::to_owned).collect()),
            "MAX_CONNECTIONS" => self.max_connections = Some(parsed(name, value)?),
            "MAX_CONNECTIONS_PER_ADDRESS" => self.max_connections_per_address = Some(parsed(name, value)?),
            "HEADER_TIMEOUT_SECONDS" => self.header_timeout_seconds = Some(parsed(name, value)?),
            "IDLE_TIMEOUT_SECONDS" => self.idle_timeout_seconds = Some(parsed(name, value)?),
            "BODY_TIMEOUT_SECONDS" => self.body_timeout_seconds = Some(parsed(name, value)?),
            "STALL_SECONDS" => self.stall_seconds = Some(parsed(name, value)?),
            "LEAST_BYTES_PER_SECOND" => self.least_bytes_per_second = Some(parsed(name, value)?),
            "KEYS" => {
                self.keys = Some(
                    listed(value)
                        .map(|key| parsed(name, key))
                        .collect::<Result<_, _>>()?,
                )
            }
            "WEBHOOK_SECRET" => self.webhook_secret = Some(parsed(name, value)?),
            "JOBS_AT_ONCE" => self.jobs_at_once = Some(parsed(name, value)?),
            "REQUESTS_PER_MINUTE" => self.requests_per_minute = Some(parsed(name, value)?),
            "ANONYMOUS_REQUESTS_PER_MINUTE" => {
                self.anonymous_requests_per_minute = Some(parsed(name, value)?);
            }
            "POLLS_PER_MINUTE" => self.polls_per_minute = Some(parsed(name, value)?),
            "LINK_TTL_SECONDS" => self.link_ttl_seconds = Some(parsed(name, value)?),
            "JOB_DEADLINE_SECONDS" => self.job_deadline_seconds = Some(parsed(name, value)?),
            "ALLOW_PRIVATE_URLS" => self.allow_private_urls = Some(parsed(name, value)?),
            "MODELSLAB_STRICT_HTTP_STATUS" => {
                self.modelslab_strict_http_status = Some(parsed(name, value)?);
            }
            "MODELSLAB_INLINE_BASE64" => self.modelslab_inline_base64 = Some(parsed(name, value)?),
            "MODELSLAB_ENHANCE_PROMPT" => self.modelslab_enhance_prompt = Some(parsed(name, value)?),
            "MODELSLAB_HOLD_SECONDS" => self.modelslab_hold_seconds = Some(parsed(name, value)?),
            "GRACE_SECONDS" => self.grace_seconds = Some(parsed(name, value)?),
            "MODEL_MEMORY" => self.model_memory = Some(parsed(name, value)?),
            "MODEL_KEEP_ALIVE_SECONDS" => self.model_keep_alive_seconds = Some(parsed(name, value)?),
            "IMAGE_MEMORY" => self.image_memory = Some(parsed(name, value)?),
            "BODY_MEMORY" => self.body_memory = Some(parsed(name, value)?),
            "JOB_MEMORY" => self.job_memory = Some(parsed(name, value)?),
            "MAX_IMAGE_MEGAPIXELS" => self.max_image_megapixels = Some(parsed(name, value)?),
            "MAX_PROMPT_TOKENS" => self.max_prompt_tokens = Some(parsed(name, value)?),
            "RUNNING_JOBS" => self.running_jobs = Some(parsed(name, value)?),
            "SAFETY_CHECKER" => self.safety_checker = Some(chosen(name, value)?),
            "COMPLIANCE" => self.compliance = Some(chosen(name, value)?),
            "C2PA_CERTIFICATES" => self.c2pa_certificates = Some(value.into()),
            "C2PA_KEY" => self.c2pa_key = Some(value.into()),
            "WRITE_PARAMETERS" => self.write_parameters = Some(parsed(name, value)?),
            "WRITE_SOURCE_TYPE" => self.write_source_type = Some(parsed(name, value)?),
            "SAFETY_MODEL" => self.safety_model = Some(value.to_owned()),
            "PROMPT_ENHANCER" => self.prompt_enhancer = Some(value.to_owned()),
            "SAFETY_THRESHOLD_PERCENT" => self.safety_threshold_percent = Some(parsed(name, value)?),
            "LOG" => self.log = Some(value.to_owned()),
            "LOG_FORMAT" => self.log_format = Some(chosen(name, value)?),
            "OTLP_ENDPOINT" => self.otlp_endpoint = Some(parsed(name, value)?),
            _ => {
                let known: Vec<String> = Self::VARIABLES
                    .iter()
                    .map(|word| format!("{PREFIX}{word}"))
                    .collect();
                return Err(ConfigError::UnknownVariable {
                    name: name.to_owned(),
                    known: known.join(", "),
                });
            }
        }
        Ok(())
    }
}

/// Several values in one variable, with commas between them.
fn listed(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(name: &str, value: &str) -> Result<T, ConfigError> {
    value.trim().parse().map_err(|error| problem(name, error))
}

fn chosen<T: ValueEnum>(name: &str, value: &str) -> Result<T, ConfigError> {
    T::from_str(value.trim(), true).map_err(|_| {
        let choices: Vec<String> = T::value_variants()
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .filter(|choice| !choice.is_hide_set())
            .map(|choice| choice.get_name().to_owned())
            .collect();
        problem(name, format_args!("it must be one of {}", choices.join(", ")))
    })
}

fn problem(name: &str, problem: impl std::fmt::Display) -> ConfigError {
    ConfigError::Variable {
        name: name.to_owned(),
        problem: problem.to_string(),
    }
}
