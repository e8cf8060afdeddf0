//! The UNet of Stable Diffusion 1.x and 2.x (Rombach et al., 2022; diffusers `unet_2d_condition.py`).
//!
//! Every row of a batch has its own timestep, so pictures at different steps share a forward.

mod attention;
mod blocks;
mod config;
mod context;
mod rows;
mod time_embedding;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels::{Around, Conv2d, GroupNorm, channels_first, channels_last, on_pool};

pub use self::config::UNetConfig;
pub use self::context::UNetContext;
pub use self::time_embedding::guidance_embedding;

use self::blocks::{DownBlock, Given, MidBlock, UpBlock};
use self::rows::Rows;
use self::time_embedding::{TimeEmbedding, timestep_embedding};
use crate::ModelError;
use crate::error::During;
use crate::layers::{Step, conv, group_norm, normalised};

/// The network that predicts the noise in a latent.
#[derive(Debug)]
pub struct UNet {
    conv_in: Conv2d,
    time: TimeEmbedding,
    down: Vec<DownBlock>,
    mid: MidBlock,
    up: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    /// How many layers attend to the text.
    layers: usize,
    config: UNetConfig,
}

/// P pictures of one forward, which may differ in everything but their shapes, and their B rows.
#[derive(Clone, Copy, Debug)]
pub struct UNetInput<'a> {
    /// (P, C, h, w), any h and w.
    pub sample: &'a Tensor,
    /// (P,), f32
    pub timesteps: &'a Tensor,
    /// The text of B rows, from [`UNet::context`].
    pub context: &'a UNetContext,
    /// How many of these rows each picture has, B in all, picture by picture; empty stands for one each. What comes
    /// before the first attention to the text is computed once for all rows of a picture.
    pub rows: &'a [usize],
    /// (P, E) from [`guidance_embedding`], for a network whose configuration has `time_cond_proj_dim` E; without it such
    /// a network sees no guidance.
    pub guidance_embedding: Option<&'a Tensor>,
    /// Whether each picture merges half of its tokens before self-attention on the outermost level, which is faster for
    /// large pictures and changes them a little; empty stands for no picture.
    pub merging: &'a [bool],
}

impl UNet {
    /// Loads the network from `vb`, at the root of its component.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn new(config: &UNetConfig, vb: VarBuilder<'_>) -> std::result::Result<Self, ModelError> {
        Self::load(config, &vb).during("loading the unet")
    }

    fn load(config: &UNetConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let levels = config.levels();
        let first = config.block_out_channels[0];
        let last = config.block_out_channels[levels - 1];
        let (down_blocks, up_blocks) = (vb.pp("down_blocks"), vb.pp("up_blocks"));
        // Layers that attend to the text are counted in the order in which they run.
        let mut next = 0;
        let down = (0..levels).map(|i| DownBlock::new(config, i, &mut next, &down_blocks.pp(i)));
        let down = down.collect::<Result<_>>()?;
        let mid = MidBlock::new(config, last, &mut next, &vb.pp("mid_block"))?;
        let up = (0..levels).map(|i| UpBlock::new(config, i, &mut next, &up_blocks.pp(i)));
        let up = up.collect::<Result<_>>()?;
        Ok(Self {
            conv_in: conv(config.in_channels, first, Step::Same, &vb.pp("conv_in"))?,
            time: TimeEmbedding::new(config, &vb.pp("time_embedding"))?,
            down,
            mid,
            up,
            layers: next,
            norm_out: group_norm(
                config.norm_num_groups,
                first,
                config.norm_eps,
                &vb.pp("conv_norm_out"),
            )?,
            conv_out: conv(first, config.out_channels, Step::Same, &vb.pp("conv_out"))?,
            config: config.clone(),
        })
    }

    /// Sizes of this network.
    #[must_use]
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// What the layers take from a text, for every evaluation: `states` (B, T, D) are its hidden states.
    ///
    /// # Errors
    /// When the shape does not fit the configuration.
    pub fn context(&self, states: &Tensor) -> std::result::Result<UNetContext, ModelError> {
        let d = self.config.cross_attention_dim;
        let (rows, tokens) = match *states.dims() {
            [rows, tokens, width] if rows * tokens > 0 && width == d => (rows, tokens),
            _ => return Err(shape("conditioning", states, format!("(B, T, {d})"))),
        };
        let attend = || {
            let mut layers = Vec::with_capacity(self.layers);
            let down = self.down.iter().flat_map(DownBlock::transformers);
            let up = self.up.iter().flat_map(UpBlock::transformers);
            for transformer in down.chain([self.mid.transformer()]).chain(up) {
                transformer.attend_to(states, &mut layers)?;
            }
            Ok(UNetContext::new(layers, (rows, tokens)))
        };
        on_pool(attend).during("attending to the text")
    }

    /// One prediction for every row: (B, out, h, w).
    ///
    /// # Errors
    /// When an input's shape does not fit the configuration, or a guidance embedding comes to a network without one.
    pub fn forward(&self, input: UNetInput<'_>) -> std::result::Result<Tensor, ModelError> {
        self.check(input)?;
        on_pool(|| self.predict(input)).during("predicting noise")
    }

    fn check(&self, input: UNetInput<'_>) -> std::result::Result<(), ModelError> {
        let UNetInput {
            sample,
            timesteps,
            context,
            rows,
            guidance_embedding: guidance,
            merging,
        } = input;
        let p = sample.dims().first().copied().unwrap_or(0);
        let check = |tensor, found: &Tensor, fits: bool, expected: String| match fits {
            true => Ok(()),
            false => Err(shape(tensor, found, expected)),
        };
        let c = self.config.in_channels;
        let fits = matches!(*sample.dims(), [p, found, h, w] if p * h * w > 0 && found == c);
        check("latent", sample, fits, format!("(P, {c}, h, w)"))?;
        check("timesteps", timesteps, *timesteps.dims() == [p], format!("({p})"))?;
        if !rows.is_empty() && (rows.len() != p || rows.contains(&0)) {
            return Err(ModelError::Shape {
                tensor: "rows of each picture",
                found: rows.to_vec(),
                expected: format!("{p} numbers from 1 on"),
            });
        }
        let b = if rows.is_empty() { p } else { rows.iter().sum() };
        if (context.rows(), context.layers()) != (b, self.layers) {
            return Err(ModelError::Shape {
                tensor: "conditioning",
                found: vec![context.rows(), context.layers()],
                expected: format!("{b} rows for {} layers", self.layers),
            });
        }
        if !merging.is_empty() && merging.len() != p {
            return Err(ModelError::Shape {
                tensor: "merging flags",
                found: vec![merging.len()],
                expected: format!("({p})"),
            });
        }
        match (guidance, self.config.time_cond_proj_dim) {
            (None, _) => Ok(()),
            (Some(found), Some(e)) => check(
                "guidance embedding",
                found,
                *found.dims() == [p, e],
                format!("({p}, {e})"),
            ),
            (Some(found), None) => check(
                "guidance embedding",
                found,
                false,
                "none for this unet".to_owned(),
            ),
        }
    }

    fn predict(&self, input: UNetInput<'_>) -> Result<Tensor> {
        let UNetInput { sample, .. } = input;
        // The time embedding's length is the first width, whatever the other sizes are.
        let time = timestep_embedding(input.timesteps, &self.config)?.to_dtype(sample.dtype())?;
        // (P, 1, width), already through the activation that every block applies first.
        let time = self.time.forward_activated(&time, input.guidance_embedding)?;
        let given = Given {
            time: &time,
            context: input.context,
            rows: &Rows::new(sample, input.rows, input.merging)?,
        };
        let mut x = self.conv_in.forward(&channels_last(sample)?, Around::default())?;
        let mut skips = vec![x.clone()];
        for block in &self.down {
            x = block.forward(x, given, &mut skips)?;
        }
        x = self.mid.forward(x, given)?;
        // Some were kept before the rows of a picture parted.
        for skip in &mut skips {
            *skip = given.rows.spread(skip)?;
        }
        for block in &self.up {
            x = block.forward(x, given, &mut skips)?;
        }
        let y = normalised(&self.norm_out, &self.conv_out, &x, Around::default())?;
        channels_first(&y)
    }
}

fn shape(tensor: &'static str, found: &Tensor, expected: String) -> ModelError {
    ModelError::Shape {
        tensor,
        found: found.dims().to_vec(),
        expected,
    }
}
