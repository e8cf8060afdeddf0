//! The command line. A flag that is also a setting stays optional here: `config` decides what it means when it is absent.

mod bench;
mod generate;
mod jobs;
mod keys;
mod models;
mod place;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use url::Url;

pub(crate) use self::bench::{BenchArgs, BenchModel};
pub(crate) use self::generate::{DEFAULT_OUT, GenerateArgs};
pub(crate) use self::jobs::{
    JobsAction, JobsArgs, JobsCancelArgs, JobsListArgs, JobsShowArgs, ReplayWebhookArgs,
};
pub(crate) use self::keys::{KeysAction, KeysArgs, KeysListArgs, KeysNewArgs};
pub(crate) use self::models::{
    ModelsAction, ModelsArgs, ModelsInspectArgs, ModelsListArgs, ModelsPullArgs, ModelsVerifyArgs,
    ModelsWarmArgs,
};
use self::place::{ComputeArgs, PlaceArgs};

use crate::config::{
    AdminListen, ByteSize, Compliance, IsaChoice, KeySetting, LogFormat, Settings, WebhookSecretSetting,
};

/// What the demo model knows best: drawn scenes.
const DEMO_PROMPT: &str = "the sea at sunset";
/// Enough that the prompt shows, little enough that the photograph does too.
const DEMO_STRENGTH: f64 = 0.6;

/// A self-hosted server for Stable Diffusion image-to-image that speaks the interfaces of hosted services.
#[derive(Debug, Parser)]
#[command(
    name = "pentimento",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Settings are taken from flags, then PENTIMENTO_* variables, then pentimento.toml, then defaults.\n\
                  Try it without any model: pentimento demo"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// The settings file [default: pentimento.toml, where there is one]
    #[arg(long, global = true, display_order = 900, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// What to log: a level, or a filter like `pentimento=debug` [default: info for `serve`, warn for others]
    #[arg(long, global = true, display_order = 900, value_name = "FILTER")]
    log: Option<String>,

    /// How to log [default: text]
    #[arg(long, global = true, display_order = 900, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// The instruction set of the processor to use, for the same numbers on different machines [default: auto]
    #[arg(long, global = true, display_order = 900, value_name = "SET")]
    isa: Option<IsaChoice>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts the server
    Serve(Box<ServeArgs>),
    /// Runs jobs of a cluster and answers nobody but health checks
    Worker(Box<WorkerArgs>),
    /// Shows the server at work: no model, no settings, no network needed
    Demo(DemoArgs),
    /// Makes pictures without a server
    Generate(Box<GenerateArgs>),
    /// Lists, fetches and looks at the models of the catalogue
    Models(ModelsArgs),
    /// Shows the jobs of a running server, cancels and watches them
    Jobs(JobsArgs),
    /// Asks the server of these settings whether it is ready; exit code 1 where it is not
    Health,
    /// Makes, lists and revokes the keys of callers, also while the server runs
    Keys(KeysArgs),
    /// Says what this machine offers and what would go wrong
    Doctor(Box<DoctorArgs>),
    /// Measures the parts of one picture
    Bench(BenchArgs),
    /// Says of pictures whether they are marked as generated, and how ours were made; exit code 1 where one is not marked
    Verify(VerifyArgs),
    /// Prints what completes this program's commands in a shell
    Completions(CompletionsArgs),
    /// Prints the manual page, for `man -l -`
    Man,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    /// PNG, JPEG or WebP files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// One JSON document in a line for each
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// The shell; `pentimento completions bash > ~/.local/share/bash-completion/completions/pentimento`, for example
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct ServeArgs {
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// Address and port where health checks are answered too, whatever callers do to the other one, or none [default:
    /// 127.0.0.1 and the port after --listen's; when that is taken, the server goes on without]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<AdminListen>,

    #[command(flatten)]
    place: PlaceArgs,

    /// The folder for pictures and the secret of their links [default: pentimento-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// A bucket for the pictures, whose keys and region are in the usual AWS_* variables [default: the data folder]
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    images: Option<String>,

    /// Shares jobs with the other machines of this broker, nats://HOST:4222 or tls://HOST:4222; PENTIMENTO_CLUSTER_TOKEN or
    /// another setting says who this one is, and --images must be a bucket [default: none]
    #[arg(long, value_name = "URL,...", value_delimiter = ',')]
    cluster: Option<Vec<Url>>,

    /// The address under which callers reach the server; links begin with it [default: the Host header of each request]
    #[arg(long, value_name = "URL")]
    public_url: Option<Url>,

    /// A key that callers must send; may be repeated. Other users of this machine can read flags: PENTIMENTO_KEYS and
    /// the settings file keep keys to yourself
    #[arg(long = "key", alias = "keys", value_name = "LABEL=SECRET")]
    keys: Vec<KeySetting>,

    /// What webhooks are signed with: whsec_ and the base64 of 24 to 64 bytes. Other users of this machine can read flags:
    /// PENTIMENTO_WEBHOOK_SECRET and the settings file keep it to yourself [default: made on the first start and kept in the data
    /// folder; `pentimento jobs webhook-secret` shows it]
    #[arg(long, value_name = "SECRET")]
    webhook_secret: Option<WebhookSecretSetting>,

    /// Origins of web pages that may call, such as `https://example.com`, or `*` for all [default: all with keys; without keys
    /// those of this machine]
    #[arg(long, value_name = "ORIGIN,...", value_delimiter = ',')]
    cors_origins: Option<Vec<String>>,

    /// Further names by which a server without keys may be called [default: localhost, the loopback addresses and the host
    /// of --public-url]
    #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
    allowed_hosts: Option<Vec<String>>,

    /// Seconds for the head of a request, from its first byte [default: 30]
    #[arg(long, value_name = "SECONDS")]
    header_timeout_seconds: Option<u64>,

    /// Seconds that a connection may rest; longer than a load balancer in front keeps it [default: 75]
    #[arg(long, value_name = "SECONDS")]
    idle_timeout_seconds: Option<u64>,

    /// Seconds that running jobs get when the server is told to stop [default: 30]
    #[arg(long, value_name = "SECONDS")]
    grace_seconds: Option<u64>,

    /// Memory for the weights of models, such as 6GiB; those that no job uses leave when it is full [default: half of the
    /// machine's memory]
    #[arg(long, value_name = "SIZE")]
    model_memory: Option<ByteSize>,

    /// Seconds that a model which nobody uses stays in memory [default: until others need the room]
    #[arg(long, value_name = "SECONDS")]
    model_keep_alive_seconds: Option<u64>,

    /// Marks pictures beyond what their files say [default: none]
    #[arg(long, value_name = "RULES")]
    compliance: Option<Compliance>,
}

#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct WorkerArgs {
    /// The broker of the cluster, nats://HOST:4222 or tls://HOST:4222; PENTIMENTO_CLUSTER_TOKEN or another setting says who
    /// this machine is
    #[arg(long, value_name = "URL,...", value_delimiter = ',')]
    cluster: Option<Vec<Url>>,

    /// The bucket for the pictures, whose keys and region are in the usual AWS_* variables
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    images: Option<String>,

    /// Address and port where health checks and metrics are answered, or none [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<AdminListen>,

    #[command(flatten)]
    place: PlaceArgs,

    /// The folder for this machine's name and its jobs [default: pentimento-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Seconds that running jobs get when the worker is told to stop; the others go to other workers [default: 30]
    #[arg(long, value_name = "SECONDS")]
    grace_seconds: Option<u64>,

    /// Memory for the weights of models, such as 6GiB [default: half of the machine's memory]
    #[arg(long, value_name = "SIZE")]
    model_memory: Option<ByteSize>,

    /// Seconds that a model which nobody uses stays in memory [default: until others need the room]
    #[arg(long, value_name = "SECONDS")]
    model_keep_alive_seconds: Option<u64>,
}

impl WorkerArgs {
    /// The same as a server's.
    fn as_serve(&self) -> ServeArgs {
        ServeArgs {
            cluster: self.cluster.clone(),
            images: self.images.clone(),
            admin_listen: self.admin_listen,
            place: self.place.clone(),
            data: self.data.clone(),
            grace_seconds: self.grace_seconds,
            model_memory: self.model_memory,
            model_keep_alive_seconds: self.model_keep_alive_seconds,
            ..ServeArgs::default()
        }
    }
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// Ends after the pictures are saved, instead of serving on
    #[arg(long)]
    pub(crate) once: bool,

    /// Opens no browser; one is opened only from a terminal on a screen of its own, and not with --once
    #[arg(long)]
    pub(crate) no_open: bool,

    /// The folder for the pictures and the server's data
    #[arg(long, value_name = "DIR", default_value = "demo-output")]
    pub(crate) out: PathBuf,

    /// Another picture than the photograph that is built in
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,

    /// What the picture should become
    #[arg(long, default_value = DEMO_PROMPT)]
    pub(crate) prompt: String,

    /// 0 gives the picture back, 1 ignores it
    #[arg(long, default_value_t = DEMO_STRENGTH)]
    pub(crate) strength: f64,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    serve: ServeArgs,
}

impl Args {
    /// The settings that were given as flags.
    pub(crate) fn settings(&self) -> Settings {
        let (mut server, mut key) = (None, None);
        if let Command::Jobs(jobs) = &self.command {
            (server, key) = (jobs.server.clone(), jobs.key.clone());
        }
        let (serve, default_log) = match &self.command {
            Command::Serve(serve) => (ServeArgs::clone(serve), "info"),
            Command::Worker(worker) => (worker.as_serve(), "info"),
            Command::Doctor(doctor) => (doctor.serve.clone(), "warn"),
            Command::Generate(generate) => (
                ServeArgs {
                    compliance: generate.compliance,
                    ..ServeArgs::at(&generate.place)
                },
                "warn",
            ),
            Command::Models(models) => (models.action.place(), "warn"),
            Command::Jobs(jobs) => (jobs.action.place(), "warn"),
            Command::Keys(keys) => (
                ServeArgs {
                    data: keys.data.clone(),
                    ..ServeArgs::default()
                },
                "warn",
            ),
            Command::Bench(bench) => {
                let compute = bench.compute.clone();
                let place = PlaceArgs {
                    compute,
                    ..PlaceArgs::default()
                };
                (ServeArgs::at(&place), "warn")
            }
            Command::Demo(_)
            | Command::Health
            | Command::Verify(_)
            | Command::Completions(_)
            | Command::Man => (ServeArgs::default(), "warn"),
        };
        Settings {
            server,
            key,
            images: serve.images,
            cluster: serve.cluster,
            listen: serve.listen,
            admin_listen: serve.admin_listen,
            cors_origins: serve.cors_origins,
            allowed_hosts: serve.allowed_hosts,
            header_timeout_seconds: serve.header_timeout_seconds,
            idle_timeout_seconds: serve.idle_timeout_seconds,
            models: serve.place.models,
            data: serve.data,
            device: serve.place.compute.device,
            precision: serve.place.compute.precision,
            gpu_memory: serve.place.compute.gpu_memory,
            public_url: serve.public_url,
            webhook_secret: serve.webhook_secret,
            keys: (!serve.keys.is_empty()).then_some(serve.keys),
            grace_seconds: serve.grace_seconds,
            model_memory: serve.model_memory,
            model_keep_alive_seconds: serve.model_keep_alive_seconds,
            compliance: serve.compliance,
            log: self.log.clone(),
            log_format: self.log_format,
            isa: self.isa,
            ..Settings::with_default_log(default_log)
        }
    }
}

impl ModelsAction {
    fn place(&self) -> ServeArgs {
        let place = match self {
            Self::List(list) => return ServeArgs::at(&list.place),
            Self::Pull(pull) => &pull.place,
            Self::Verify(verify) => &verify.place,
            Self::Inspect(inspect) => &inspect.place,
            Self::Warm(warm) => &warm.place,
        };
        let compute = match self {
            Self::Warm(warm) => warm.compute.clone(),
            Self::List(_) | Self::Pull(_) | Self::Verify(_) | Self::Inspect(_) => ComputeArgs::default(),
        };
        ServeArgs {
            data: place.data.clone(),
            ..ServeArgs::at(&PlaceArgs {
                models: place.models.clone(),
                compute,
            })
        }
    }
}

impl JobsAction {
    fn place(&self) -> ServeArgs {
        ServeArgs {
            data: match self {
                Self::WebhookSecret(secret) => secret.data.clone(),
                Self::List(_) | Self::Show(_) | Self::Cancel(_) | Self::Watch(_) | Self::ReplayWebhook(_) => {
                    None
                }
            },
            ..ServeArgs::default()
        }
    }
}

impl ServeArgs {
    fn at(place: &PlaceArgs) -> Self {
        Self {
            place: place.clone(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use pentimento_types::SchedulerKind;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn bench_takes_one_model_and_names_the_way_it_runs() {
        let bench = |more: &[&str]| Args::try_parse_from(["pentimento", "bench"].iter().chain(more));
        assert!(bench(&["--folder", "x", "--model", "sd15"]).is_err());
        assert!(bench(&["--rows", "0"]).is_err());
        assert!(bench(&["--repeat", "0"]).is_err());
        let Command::Bench(args) = bench(&["--folder", "x"]).unwrap().command else {
            panic!("another command")
        };
        assert_eq!(args.scheduler, SchedulerKind::LCM);
        assert_eq!((args.guidance, args.repeat, args.rows), (1.0, 1, 1));
        for bad in ["7", "0", "12", "2056", "-8", "8.0", ""] {
            assert!(bench(&["--size", bad]).is_err(), "{bad}");
        }
        assert!(bench(&["--size", "768"]).is_ok());
    }

    #[test]
    fn flags_become_settings() {
        let args =
            Args::try_parse_from(["pentimento", "serve", "--listen", "127.0.0.1:0", "--key", "a=b"]).unwrap();
        let settings = args.settings();
        assert_eq!(settings.listen, Some("127.0.0.1:0".parse().unwrap()));
        assert_eq!(settings.keys.map(|keys| keys.len()), Some(1));
        assert_eq!(settings.data, None);
    }
}
