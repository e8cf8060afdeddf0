//! `pentimento generate`: pictures without a server, through the same engine, with the same bytes as a server gives.

mod inputs;
mod target;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use pentimento_catalog::Catalog;
use pentimento_engine::{
    EmbeddingFiles, JobEvent, JobEvents, Precision, ResolvedJob, ResolvedModels, RunPlan, keeps_everything,
};
use pentimento_hub::{Found, Hub};
use pentimento_service::image_codec::{ManifestSigner, Marks, Origin, SourceType, with_watermark};
use pentimento_service::{InputLimits, NamedModels, ServiceError, image_codec, model_notes};
use pentimento_types::{
    ImageFormat, Inputs, IpAdapterRef, JobId, JobNote, ModelId, Progress, Recipe, RgbImage, SchedulerChoice,
    Size, Start, Task, read_regular,
};

use self::target::{PIPE, Target};
use crate::args::GenerateArgs;
use crate::commands::fetch::fetch;
use crate::config::Config;
use crate::{assemble, output, pictures};

/// What this command reads at most; nobody but the user is harmed by a large picture.
const LIMITS: InputLimits = InputLimits {
    max_side: u32::MAX,
    max_pixels: 256_000_000,
    max_bytes: 512 << 20,
};

/// Inputs that are decoded and made at the same time; the others wait on the disk.
const TOGETHER: usize = 16;

/// Makes the pictures and writes them.
pub(crate) async fn run(args: GenerateArgs, config: Config) -> anyhow::Result<()> {
    let pictures = inputs::expanded(&args.images)?;
    let targets = Target::of_each(&args, &pictures)?;
    let task = task_of(&args, &pictures);
    // Without a picture there is one job all the same.
    let inputs: Vec<Option<PathBuf>> = match task {
        Task::TextToImage => vec![None],
        Task::ImageToImage | Task::Inpainting => pictures.into_iter().map(Some).collect(),
    };
    let catalog = assemble::catalog(&config)?;
    let recipe = recipe(&args, task);
    let models = models(&catalog, &assemble::hub(&config)?, &recipe).await?;
    // The first one now: what is wrong with a single input is said before the model is loaded.
    let first = inputs[0].as_deref().map(read_init).transpose()?;
    let (mut recipe, native_size) = planned(&models, recipe, task)?;
    let mask = mask_for(&args, &mut recipe)?;
    let recipe = Arc::new(recipe);
    let beside = Beside {
        mask,
        shown: args.ip_adapter_image.as_deref().map(read_picture).transpose()?,
        size: Size {
            width: args.width.unwrap_or(native_size.width),
            height: args.height.unwrap_or(native_size.height),
        },
    };
    // Before the load, which takes a while.
    say_notes(&models, &recipe, args.seed.is_none())?;
    let engine = assemble::Engine::start(&config, std::slice::from_ref(&models.checkpoint))?;
    let precision = engine.handle.precision(&models.checkpoint);
    let finish = finish_of(&config, (&recipe, task), precision)?;
    let bar = Bar::new(&recipe, inputs.len())?;
    let is_single = inputs.len() == 1;
    let ids: Vec<JobId> = inputs.iter().map(|_| JobId::new()).collect();
    let jobs = inputs.iter().zip(&targets).zip(&ids).enumerate();
    let jobs = jobs.map(|(number, ((input, target), id))| {
        let (recipe, models, first) = (&recipe, &models, first.clone().filter(|_| number == 0));
        let (engine, bar, beside, finish) = (&engine, &bar, &beside, &finish);
        async move {
            let init = first.map_or_else(
                || input.as_deref().map(read_init).transpose(),
                |first| Ok(Some(first)),
            )?;
            let job = ResolvedJob {
                recipe: Arc::clone(recipe),
                models: models.clone(),
                images: beside.with_init(init),
            };
            let events = engine.handle.generate(*id, job)?;
            let finished = collect(events, recipe, bar).await;
            let finished = match input {
                Some(input) => finished.with_context(|| format!("of {}", input.display()))?,
                None => finished?,
            };
            let finished = finish.write(finished, (input.as_deref(), target), bar)?;
            // Of many inputs nothing is shown, and their pictures are not kept.
            anyhow::Ok(is_single.then_some(finished))
        }
    });
    let made = stream::iter(jobs).buffered(TOGETHER).try_collect::<Vec<_>>();
    let made = tokio::select! {
        made = made => {
            bar.bar.finish_and_clear();
            made?
        }
        _ = tokio::signal::ctrl_c() => {
            bar.bar.finish_and_clear();
            for id in ids {
                engine.handle.cancel(id);
            }
            bail!("stopped by the user");
        }
    };
    engine.stop().await?;

    match (made.as_slice(), targets.as_slice()) {
        ([Some(finished)], [target]) if !target.is_pipe() && !args.no_preview => show(finished),
        _ => Ok(()),
    }
}

/// What becomes of each picture that an engine of this precision has made. One that gives its input back is not computed.
fn finish_of(
    config: &Config,
    (recipe, task): (&Arc<Recipe>, Task),
    precision: Precision,
) -> anyhow::Result<Finish> {
    let is_computed = !recipe.gives_input_back();
    Ok(Finish {
        recipe: Arc::clone(recipe),
        task,
        marks: assemble::marks(config).of(recipe),
        watermark: config.compliance.wants_watermark() && is_computed,
        signer: assemble::manifest_signer(config)?.filter(|_| is_computed),
        precision: if is_computed { precision } else { Precision::F32 },
    })
}

/// The mask, of which the recipe is told whether it marks anything.
fn mask_for(args: &GenerateArgs, recipe: &mut Recipe) -> anyhow::Result<Option<RgbImage>> {
    let mask = args.mask.as_deref().map(read_mask).transpose()?;
    recipe.keeps_everything = mask
        .as_ref()
        .is_some_and(|mask| keeps_everything(mask, recipe.differential_diffusion));
    if recipe.keeps_everything {
        output::note(format_args!("{}", JobNote::MaskKeepsEverything));
    }
    Ok(mask)
}

fn show(finished: &[RgbImage]) -> anyhow::Result<()> {
    for picture in finished {
        pictures::preview(&pictures::to_picture(picture)?);
    }
    Ok(())
}

fn task_of(args: &GenerateArgs, pictures: &[PathBuf]) -> Task {
    match (&args.mask, pictures.is_empty()) {
        (_, true) => Task::TextToImage,
        (None, false) => Task::ImageToImage,
        (Some(_), false) => Task::Inpainting,
    }
}

fn say_notes(models: &ResolvedModels, recipe: &Recipe, is_drawn: bool) -> anyhow::Result<()> {
    for note in model_notes(models, recipe)? {
        output::note(format_args!("{note}"));
    }
    if is_drawn {
        output::note(format_args!("seed {}", recipe.seed));
    }
    Ok(())
}

/// What every input is made with.
struct Beside {
    mask: Option<RgbImage>,
    /// What an IP-Adapter shows the model.
    shown: Option<RgbImage>,
    /// Of a picture that is made from words alone.
    size: Size,
}

impl Beside {
    fn with_init(&self, init: Option<RgbImage>) -> Inputs<RgbImage> {
        let mask = self.mask.clone();
        let images = Inputs::starting(match init {
            Some(init) => Start::Image { init, mask },
            None => Start::Noise(self.size),
        });
        match &self.shown {
            Some(shown) => images.with_ip_adapter(shown.clone()),
            None => images,
        }
    }
}

/// What is done with pictures before they are written.
struct Finish {
    recipe: Arc<Recipe>,
    task: Task,
    marks: Marks,
    watermark: bool,
    signer: Option<ManifestSigner>,
    precision: Precision,
}

impl Finish {
    /// Marks, signs and writes the pictures made of one input, and returns them as they were written.
    fn write(
        &self,
        finished: Vec<RgbImage>,
        (input, target): (Option<&Path>, &Target),
        bar: &Bar,
    ) -> anyhow::Result<Vec<RgbImage>> {
        let origin = self
            .signer
            .as_ref()
            .map(|signer| origin(signer, self.task, input));
        let origin = origin.transpose()?;
        let finished: Vec<RgbImage> = if self.watermark {
            finished.into_iter().map(with_watermark).collect()
        } else {
            finished
        };
        let how = (target.format, self.marks, self.precision);
        for (index, picture) in (0..).zip(&finished) {
            let mut bytes = encode(picture, (&self.recipe, self.task), index, how)?;
            if let (Some(signer), Some(origin)) = (&self.signer, &origin) {
                bytes = signer.sign(&bytes, target.format, origin)?;
            }
            bar.bar.suspend(|| target.write(index, &bytes))?;
        }
        Ok(finished)
    }
}

/// What a signature says of the picture's making. The standard input was read already, and its manifest is not kept.
fn origin(signer: &ManifestSigner, task: Task, path: Option<&Path>) -> anyhow::Result<Origin> {
    let sent = match path.filter(|path| *path != Path::new(PIPE)) {
        Some(path) => read_file(path)?,
        None => Vec::new(),
    };
    Ok(Origin {
        source_type: SourceType::of(task),
        parent: signer.parent(&sent),
    })
}

fn read_init(path: &Path) -> anyhow::Result<RgbImage> {
    image_codec::decode(&read_input(path)?, LIMITS).with_context(|| format!("cannot use {}", path.display()))
}

/// What the recipe's names stand for; files that are not here are fetched.
async fn models(catalog: &Catalog, hub: &Hub, recipe: &Recipe) -> anyhow::Result<ResolvedModels> {
    let named = NamedModels::of(catalog, recipe).map_err(|error| {
        let is_strange = matches!(&error, ServiceError::ModelNotFound { nearest, .. } if nearest.is_empty());
        let way_out = if is_strange {
            "; `pentimento models list` shows what there is"
        } else {
            ""
        };
        anyhow::anyhow!("{error}{way_out}")
    })?;
    let mut located = Vec::new();
    for (_, entry) in named.entries() {
        located.push(fetch(hub, &entry).await?);
    }
    let named = named.located(located);
    let mut written_here = Vec::new();
    for entry in named.written() {
        match hub.look(entry) {
            Found::Ready(located) => written_here.push(located),
            Found::Unchecked => written_here.extend(fetch(hub, entry).await.ok()),
            Found::Wrong(_) | Found::Absent | Found::Unavailable(_) => {}
        }
    }
    let files = EmbeddingFiles::default();
    let (embeddings, notes) = named.read_embeddings(&written_here, recipe, (catalog, hub, &files))?;
    for note in named.left_out(&written_here).into_iter().chain(notes) {
        output::note(format_args!("{note}"));
    }
    Ok(named.resolved(embeddings))
}

fn read_input(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path != Path::new(PIPE) {
        return read_file(path);
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(LIMITS.max_bytes + 1)
        .read_to_end(&mut bytes)
        .context("cannot read the standard input")?;
    Ok(bytes)
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    read_regular(path, LIMITS.max_bytes).with_context(|| format!("cannot use {}", path.display()))
}

fn read_picture(path: &Path) -> anyhow::Result<RgbImage> {
    image_codec::decode(&read_file(path)?, LIMITS).with_context(|| format!("cannot use {}", path.display()))
}

fn read_mask(path: &Path) -> anyhow::Result<RgbImage> {
    let mask = image_codec::decode_mask(&read_file(path)?, LIMITS)
        .with_context(|| format!("cannot use {}", path.display()))?;
    if mask.is_alpha {
        output::note(format_args!("{}", JobNote::MaskIsAlpha));
    }
    Ok(mask.image)
}

fn recipe(args: &GenerateArgs, task: Task) -> Recipe {
    let recipe = Recipe {
        model: ModelId::new(&args.model),
        vae: args.vae.as_ref().map(ModelId::new),
        loras: args.loras.clone(),
        embeddings: Vec::new(),
        prompt: args.prompt.clone(),
        negative_prompt: args.negative.clone(),
        image_count: args.count,
        steps: args.steps,
        strength: args.strength,
        guidance_scale: args.guidance,
        // 32 bits are short enough to type again.
        seed: args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        clip_skip: args.clip_skip,
        token_merging: args.merge_tokens,
        scheduler: SchedulerChoice {
            kind: args.scheduler,
            ..SchedulerChoice::default()
        },
        framing: None,
        soft_edge: args.soft_edge,
        differential_diffusion: args.differential_diffusion,
        keeps_everything: false,
        ip_adapter: args.ip_adapter.as_ref().map(|name| IpAdapterRef {
            model: ModelId::new(name),
            scale: args.ip_adapter_scale,
        }),
    };
    let strength = recipe.strength_for(task);
    Recipe { strength, ..recipe }
}

/// The recipe with nothing left to the checkpoint, so that the picture says what ran, and the size that the checkpoint is for. A
/// recipe that no run can do is refused before a model is loaded.
fn planned(models: &ResolvedModels, recipe: Recipe, task: Task) -> anyhow::Result<(Recipe, Size)> {
    const USUAL: Size = Size {
        width: 512,
        height: 512,
    };
    match RunPlan::of(models, &recipe, task) {
        Ok(plan) => {
            let scheduler = plan.named(recipe.scheduler);
            let planned = Recipe { scheduler, ..recipe };
            Ok((planned, plan.native_size.unwrap_or(USUAL)))
        }
        Err(error) => match error.refused_setting() {
            Some((setting, problem)) => bail!("{setting}: {problem}"),
            // The load says what is wrong with the checkpoint.
            None => Ok((recipe, USUAL)),
        },
    }
}

/// Shows the progress, and gives the pictures in the order of their seeds.
async fn collect(mut events: JobEvents, recipe: &Recipe, bar: &Bar) -> anyhow::Result<Vec<RgbImage>> {
    let mut pictures: Vec<Option<RgbImage>> = vec![None; recipe.image_count as usize];
    let mut last = Progress {
        done: 0,
        total: bar.guess,
    };
    while let Some(event) = events.next().await {
        match event {
            JobEvent::Started | JobEvent::Preview { .. } => {}
            JobEvent::Progress(now) => {
                bar.moved(last, now);
                last = now;
            }
            JobEvent::Image { index, finished } => {
                if let Some(place) = pictures.get_mut(index as usize) {
                    *place = Some(finished.image);
                }
            }
            JobEvent::Finished => break,
            JobEvent::Failed(error) => {
                bar.bar.finish_and_clear();
                return Err(anyhow::Error::new(error).context("the picture could not be made"));
            }
            JobEvent::Cancelled => bail!("the job was cancelled"),
        }
    }
    pictures
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .context("the engine finished without all pictures")
}

/// One bar over all inputs, on the standard error; hidden by indicatif where that is no terminal.
struct Bar {
    bar: ProgressBar,
    /// Evaluations of an input while nothing is known of them.
    guess: u32,
}

impl Bar {
    fn new(recipe: &Recipe, inputs: usize) -> anyhow::Result<Self> {
        let style = "{msg:10} {bar:32} {pos}/{len} evaluations, {elapsed} gone, {eta} left";
        let guess = recipe.steps * recipe.image_count;
        let bar = ProgressBar::new(u64::from(guess) * inputs as u64)
            .with_style(ProgressStyle::with_template(style)?)
            .with_message("preparing");
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Ok(Self { bar, guess })
    }

    fn moved(&self, last: Progress, now: Progress) {
        if last.total < now.total {
            self.bar.inc_length(u64::from(now.total - last.total));
        } else {
            self.bar.dec_length(u64::from(last.total - now.total));
        }
        self.bar.inc(u64::from(now.done.saturating_sub(last.done)));
        let is_last = self.bar.length() == Some(self.bar.position());
        self.bar
            .set_message(if is_last { "decoding" } else { "denoising" });
    }
}

fn encode(
    image: &RgbImage,
    (recipe, task): (&Recipe, Task),
    index: u32,
    (format, marks, precision): (ImageFormat, Marks, Precision),
) -> anyhow::Result<bytes::Bytes> {
    let metadata = image_codec::ImageMetadata::new(recipe, task, index, image.size()).computed_in(precision);
    Ok(image_codec::encode(image, format, (&metadata, marks))?)
}
