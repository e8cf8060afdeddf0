//! The command line. A flag that is also a setting stays optional here: `config` decides what it means when it is absent.

mod jobs;
mod keys;
mod models;
mod place;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use pentimento_types::{ImageFormat, LoraRef, ModelId, SchedulerKind};
use url::Url;

pub(crate) use self::jobs::{
    JobsAction, JobsArgs, JobsCancelArgs, JobsListArgs, JobsShowArgs, ReplayWebhookArgs,
};
pub(crate) use self::keys::{KeysAction, KeysArgs, KeysListArgs, KeysNewArgs};
pub(crate) use self::models::{
    ModelsAction, ModelsArgs, ModelsInspectArgs, ModelsListArgs, ModelsPullArgs, ModelsVerifyArgs,
    ModelsWarmArgs,
};
use self::place::{ComputeArgs, PlaceArgs, bench_side};

use crate::config::{
    AdminListen, ByteSize, Compliance, IsaChoice, KeySetting, LogFormat, Settings, WebhookSecretSetting,
};

/// Where `generate` writes when nobody says.
pub(crate) const DEFAULT_OUT: &str = "out.png";
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
pub(crate) struct GenerateArgs {
    /// The picture to start from: PNG, JPEG or WebP; `-` reads it from the standard input. Several, or a folder of them, are
    /// made together, each with the same seed [default: none, and the picture is made from the prompt alone]
    #[arg(long = "image", value_name = "FILE", num_args = 1..)]
    pub(crate) images: Vec<PathBuf>,

    /// White is painted anew and black is kept; of any size
    #[arg(long, value_name = "FILE", requires = "images")]
    pub(crate) mask: Option<PathBuf>,

    /// Takes the mask's grey for how much each pixel may change, from black, which stays, to white
    #[arg(long, requires = "mask")]
    pub(crate) differential_diffusion: bool,

    /// Pixels per line of a picture that is made from the prompt alone, a multiple of 8 [default: what the checkpoint was trained
    /// on]
    #[arg(long, value_name = "PIXELS", conflicts_with = "images", value_parser = side)]
    pub(crate) width: Option<u32>,

    /// Lines of such a picture, a multiple of 8 [default: what the checkpoint was trained on]
    #[arg(long, value_name = "PIXELS", conflicts_with = "images", value_parser = side)]
    pub(crate) height: Option<u32>,

    /// Pixels over which the new part fades in at the mask's edge
    #[arg(long, value_name = "PIXELS", default_value_t = 0, requires = "mask", value_parser = clap::value_parser!(u32).range(0..=256))]
    pub(crate) soft_edge: u32,

    /// What the picture should show
    #[arg(long)]
    pub(crate) prompt: String,

    /// What it should not show; counts when guidance is above 1
    #[arg(long)]
    pub(crate) negative: Option<String>,

    /// A checkpoint of the catalogue
    #[arg(long, default_value = "demo")]
    pub(crate) model: String,

    /// A VAE of the catalogue [default: the checkpoint's own]
    #[arg(long, value_name = "NAME")]
    pub(crate) vae: Option<String>,

    /// A LoRA of the catalogue, with its strength where that is not 1; may be repeated
    #[arg(long = "lora", value_name = "NAME[:STRENGTH]", value_parser = lora)]
    pub(crate) loras: Vec<LoraRef>,

    /// An IP-Adapter of the catalogue, which shows the model a picture beside the prompt
    #[arg(long, value_name = "NAME", requires = "ip_adapter_image")]
    pub(crate) ip_adapter: Option<String>,

    /// The picture that it shows; a square one is seen whole
    #[arg(long, value_name = "FILE", requires = "ip_adapter")]
    pub(crate) ip_adapter_image: Option<PathBuf>,

    /// How much that picture counts: 1 as the adapter was trained, 0 not at all
    #[arg(long, value_name = "SCALE", default_value_t = 1.0, requires = "ip_adapter", value_parser = unit_interval)]
    pub(crate) ip_adapter_scale: f64,

    /// Steps of the whole schedule; strength decides how many of them run
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) steps: u32,

    /// 0 gives the picture back, 1 ignores it
    #[arg(long, default_value_t = 0.6, requires = "images", value_parser = unit_interval)]
    pub(crate) strength: f64,

    /// How closely to follow the prompt; up to 1 there is no guidance
    #[arg(long, default_value_t = 2.0, value_parser = guidance_scale)]
    pub(crate) guidance: f64,

    /// The same seed gives the same picture [default: a random one, which is printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,

    /// The diffusion scheduler, by its diffusers name: LCMScheduler, DDIM, EulerDiscrete [default: the checkpoint's]
    #[arg(long, value_name = "NAME", value_parser = scheduler)]
    pub(crate) scheduler: Option<SchedulerKind>,

    /// 1 uses the text encoder's last layer, 2 the one before it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=12))]
    pub(crate) clip_skip: u32,

    /// Faster for large pictures, by merging tokens that are nearly alike; changes the picture a little
    #[arg(long)]
    pub(crate) merge_tokens: bool,

    /// How many pictures; picture k uses seed + k
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) count: u32,

    /// Where to; further pictures get `-1`, `-2` before the ending. `-` writes to the standard output. For several inputs it is a
    /// folder, and the pictures have their names
    #[arg(long, value_name = "FILE", default_value = DEFAULT_OUT)]
    pub(crate) out: PathBuf,

    /// png, jpeg or webp [default: what the ending of --out says, else png]
    #[arg(long, value_parser = image_format)]
    pub(crate) format: Option<ImageFormat>,

    /// Shows no picture in the terminal
    #[arg(long)]
    pub(crate) no_preview: bool,

    /// Marks pictures beyond what their files say [default: none]
    #[arg(long, value_name = "RULES")]
    compliance: Option<Compliance>,

    #[command(flatten)]
    place: PlaceArgs,
}

impl GenerateArgs {
    /// Where the pictures of several inputs go.
    pub(crate) fn out_folder(&self) -> &Path {
        if self.out == Path::new(DEFAULT_OUT) {
            Path::new(".")
        } else {
            &self.out
        }
    }
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// `demo` is the built-in model; `sd15` has the shapes of Stable Diffusion 1.5 with random weights (4 GB of memory)
    #[arg(long, default_value = "demo")]
    pub(crate) model: BenchModel,

    /// A diffusers folder (model_index.json with text_encoder, unet, vae, tokenizer and scheduler beside it) or a checkpoint in
    /// one file instead
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    pub(crate) folder: Option<PathBuf>,

    /// Side of the square picture, a multiple of 8 [default: 128 for demo, else 512]
    #[arg(long, value_name = "PIXELS", value_parser = bench_side)]
    pub(crate) size: Option<u32>,

    /// Steps of the schedule, all of which run; some schedulers evaluate the UNet twice in a step
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) steps: u32,

    /// The diffusion scheduler, by its diffusers name: LCMScheduler, DDIM, EulerDiscrete
    #[arg(long, value_name = "NAME", default_value = "LCM", value_parser = scheduler)]
    pub(crate) scheduler: SchedulerKind,

    /// Above 1 the UNet computes every picture twice, with the prompt and without
    #[arg(long, default_value_t = 1.0, value_parser = guidance_scale)]
    pub(crate) guidance: f64,

    /// Merge tokens that are nearly alike, where the picture is large enough for it to be faster
    #[arg(long)]
    pub(crate) merge_tokens: bool,

    /// Runs after the load, of which the median and the fastest are shown
    #[arg(long, value_name = "RUNS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,

    /// Pictures that share every forward of the UNet, as the server batches them
    #[arg(long, value_name = "PICTURES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) rows: u32,

    /// One JSON document instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    compute: ComputeArgs,
}

/// What `bench` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchModel {
    Demo,
    Sd15,
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

fn unit_interval(text: &str) -> Result<f64, String> {
    number_within(text, 0.0, 1.0)
}

/// Of a picture that is made from noise.
fn side(text: &str) -> Result<u32, String> {
    const STEP: u32 = 8;
    const LONGEST: u32 = 8192;
    let side = text.parse().ok().filter(|side: &u32| side.is_multiple_of(STEP));
    side.filter(|side| (STEP..=LONGEST).contains(side))
        .ok_or_else(|| format!("a side is a multiple of {STEP} from {STEP} to {LONGEST}"))
}

fn guidance_scale(text: &str) -> Result<f64, String> {
    number_within(text, 0.0, 100.0)
}

/// A name with a colon in it is written with its strength.
fn lora(text: &str) -> Result<LoraRef, String> {
    let (name, strength) = match text.rsplit_once(':') {
        Some((name, strength)) => (name, number_within(strength, -10.0, 10.0)?),
        None => (text, 1.0),
    };
    Ok(LoraRef {
        model: ModelId::new(name),
        strength,
    })
}

fn number_within(text: &str, low: f64, high: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    // NaN is in no range.
    if (low..=high).contains(&number) {
        Ok(number)
    } else {
        Err(format!("not in {low}..={high}"))
    }
}

fn scheduler(name: &str) -> Result<SchedulerKind, String> {
    SchedulerKind::parse(name).ok_or_else(|| {
        let names: Vec<&str> = SchedulerKind::ALL.iter().map(|kind| kind.class_name()).collect();
        format!("there is no such scheduler; the names are {}", names.join(", "))
    })
}

fn image_format(name: &str) -> Result<ImageFormat, String> {
    ImageFormat::parse(name).ok_or_else(|| "the formats are png, jpeg and webp".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn numbers_outside_their_range_are_refused() {
        for bad in ["-0.1", "1.01", "NaN", "inf", "x", ""] {
            assert!(unit_interval(bad).is_err(), "{bad}");
        }
        assert_eq!(unit_interval("0.3"), Ok(0.3));
        assert!(scheduler("Nonsense").unwrap_err().contains("LCMScheduler"));
        assert_eq!(scheduler("ddim"), Ok(SchedulerKind::DDIM));
        for bad in ["7", "0", "12", "2056", "-8", "8.0", ""] {
            assert!(bench_side(bad).is_err(), "{bad}");
        }
        assert_eq!(bench_side("768"), Ok(768));
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
