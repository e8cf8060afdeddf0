//! The UNet of Stable Diffusion 1.x, 2.x and XL (Rombach et al., 2022; Podell et al., 2023; diffusers `unet_2d_condition.py`).
//!
//! Every image of a batch has its own timestep, so images at different steps share a forward.

mod block_inputs;
mod blocks;
mod computation;
mod config;
mod cross_attn_kv;
mod input;
mod prediction;
mod row_map;
mod row_network;
mod time_embedding;
mod transformer;

pub use self::config::{TextTime, UNetConfig};
pub use self::cross_attn_kv::PreparedConditioning;
pub use self::input::UNetInput;
pub use self::row_network::RowNetwork;
pub use self::time_embedding::guidance_embedding;

use std::sync::Arc;

use self::blocks::{DownBlock, MidBlock, UpBlock};
use self::computation::Prediction;
use self::time_embedding::TimeEmbedding;
use crate::error::During;
use crate::layers::{
    Attention, BranchSet, Conv2d, DeviceLocation, GroupNorm, HostTensor, InputList, KeyValues, Layer,
    LayerName, LayerPatch, LayerShape, LayerSource, PatchOf, ProgramMemory, Programs, Result, Stride,
    branch_set, each_spec, has_branches, on_pool, patch_each, size_bytes,
};
use crate::{Conditioning, ConditioningShape, ImageTokens, IpAdapter, ModelError};

/// The network that predicts the noise in a latent.
#[derive(Clone, Debug)]
pub struct UNet {
    conv_in: Conv2d,
    time: TimeEmbedding,
    down: Vec<DownBlock>,
    mid: MidBlock,
    up: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    /// How many cross-attentions there are.
    cross_attns: usize,
    config: UNetConfig,
    /// Shared with every copy whose rows share forwards with this network's.
    predictions: Arc<Programs<Prediction>>,
    /// Of keys and values of texts, and of what SDXL adds for them.
    preparations: Programs<()>,
    /// The branches beside the layers, of a copy whose rows share forwards with those of other sets.
    branches: Option<Arc<BranchSet>>,
}

impl UNet {
    /// Loads the network from `from`, at the root of its component.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn new(config: &UNetConfig, from: LayerSource<'_>) -> std::result::Result<Self, ModelError> {
        Self::load(config, &from).during("loading the unet")
    }

    fn load(config: &UNetConfig, from: &LayerSource<'_>) -> Result<Self> {
        let levels = config.levels();
        let first = config.block_out_channels[0];
        let last = config.block_out_channels[levels - 1];
        let (down_blocks, up_blocks) = (from.pp("down_blocks"), from.pp("up_blocks"));
        // Cross-attentions are numbered in the order in which they run.
        let mut next = 0;
        let down = (0..levels).map(|i| DownBlock::new(config, i, &mut next, &down_blocks.pp(i)));
        let down = down.collect::<Result<_>>()?;
        let mid = MidBlock::new(config, last, &mut next, &from.pp("mid_block"))?;
        let up = (0..levels).map(|i| UpBlock::new(config, i, &mut next, &up_blocks.pp(i)));
        let up = up.collect::<Result<_>>()?;
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, first, Stride::One, &from.pp("conv_in"))?,
            time: TimeEmbedding::new(config, from)?,
            down,
            mid,
            up,
            cross_attns: next,
            norm_out: GroupNorm::new(
                config.norm_num_groups,
                first,
                config.norm_eps,
                &from.pp("conv_norm_out"),
            )?,
            conv_out: Conv2d::new(first, config.out_channels, Stride::One, &from.pp("conv_out"))?,
            config: config.clone(),
            predictions: Arc::new(Programs::new(from.device())),
            preparations: Programs::new(from.device()),
            branches: None,
        })
    }

    /// Sizes of this network.
    #[must_use]
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Where it computes.
    #[must_use]
    pub fn device(&self) -> DeviceLocation {
        self.predictions.device().location()
    }

    /// Calls `visit` with every layer of the checkpoint, in the order in which they run.
    pub fn layers(&self, visit: &mut dyn FnMut(&LayerName, LayerShape)) {
        // A copy shares all weights, and there is one walk for looking and for changing.
        each_spec(|visit| self.clone().walk(&mut |layer| visit(layer)), visit);
    }

    /// Bytes that the weights hold.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        size_bytes(|visit| self.clone().walk(&mut |layer| visit(layer)))
    }

    /// A copy in which the layers that `change` answers for are others; all others are shared with this network, which stays
    /// as it is. Also the bytes that the copy holds beyond what is shared.
    ///
    /// # Errors
    /// What `change` fails with; when a patch does not fit its layer, or the layer has been changed before.
    pub fn patched<E: From<ModelError>>(
        &self,
        change: &mut PatchOf<'_, E>,
    ) -> std::result::Result<(Self, u64), E> {
        let mut copy = self.clone();
        // Beside branches of another set there is no room in a shared forward.
        let mut is_beside = !has_branches(|visit| copy.walk(visit));
        let mut noting = |name: &LayerName, shape: LayerShape| {
            let patch = change(name, shape);
            is_beside &= !matches!(patch, Ok(Some(LayerPatch::Weights { .. })));
            patch
        };
        let bytes = patch_each(|visit| copy.walk(visit), &mut noting)?;
        let set = copy.share_forwards(is_beside).during("changing the unet")?;
        Ok((copy, bytes + set as u64))
    }

    /// Makes programs of its own for a copy that does not share its rows' forwards with the network that it was made of. Result:
    /// the bytes of what it takes to share them.
    fn share_forwards(&mut self, is_beside: bool) -> Result<usize> {
        let device = self.predictions.device().clone();
        let set = if is_beside {
            branch_set(&device, |visit| self.walk(visit))?
        } else {
            None
        };
        let bytes = set.as_ref().map_or(0, BranchSet::size_bytes);
        if set.is_none() {
            self.predictions = Arc::new(Programs::new(&device));
        }
        self.branches = set.map(Arc::new);
        Ok(bytes)
    }

    /// What a row has of this network. Rows of its clones share a forward with it and, on a device that [mixes
    /// sets](crate::Device::mixes_sets), those of copies with nothing but branches.
    #[must_use]
    pub fn row_network(&self) -> RowNetwork {
        RowNetwork {
            programs: self.predictions.id(),
            branches: self.branches.clone(),
        }
    }

    fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.conv_in);
        self.time.walk(visit);
        self.down.iter_mut().for_each(|block| block.walk(visit));
        self.mid.walk(visit);
        self.up.iter_mut().for_each(|block| block.walk(visit));
        visit(&mut self.norm_out);
        visit(&mut self.conv_out);
    }

    /// Turns a conditioning into what every evaluation needs of it, of [`UNet::kv_bytes`] bytes.
    ///
    /// # Errors
    /// When a shape does not fit the configuration, or an input is there that this network does not take.
    pub fn prepare(
        &self,
        conditioning: &Conditioning,
    ) -> std::result::Result<PreparedConditioning, ModelError> {
        self.prepare_with(conditioning, None)
    }

    /// As [`UNet::prepare`], with the adapter that projects the image tokens, without which none are taken. At scale 0 they
    /// are as if they were not there.
    ///
    /// # Errors
    /// As [`UNet::prepare`], and when the adapter is for another UNet.
    pub fn prepare_with(
        &self,
        conditioning: &Conditioning,
        adapter: Option<&IpAdapter>,
    ) -> std::result::Result<PreparedConditioning, ModelError> {
        let shape = conditioning.shape()?;
        let pooled = self.config.text_time.map(|sizes| sizes.pooled);
        let is_text_time = pooled.is_some();
        let refused = [
            ("pooled state", shape.pooled.is_some() && !is_text_time),
            ("size conditions", shape.size_conditions && !is_text_time),
            ("image tokens", shape.image_tokens > 0 && adapter.is_none()),
        ];
        if let Some((input, _)) = refused.into_iter().find(|(_, there)| *there) {
            return Err(ModelError::NotTaken {
                network: "UNet",
                input,
            });
        }
        if let Some(expected) = pooled.filter(|_| shape.pooled != pooled) {
            return Err(ModelError::Shape {
                tensor: "pooled state",
                found: shape.pooled.map(|found| vec![1, found]).unwrap_or_default(),
                expected: format!("(1, {expected})"),
            });
        }
        if is_text_time && !shape.size_conditions {
            return Err(ModelError::Shape {
                tensor: "size conditions",
                found: Vec::new(),
                expected: "6 numbers".to_owned(),
            });
        }
        let states = &conditioning.token_states;
        let width: usize = states.iter().map(|states| states.dims()[2]).sum();
        if width != self.config.cross_attention_dim {
            return Err(ModelError::Shape {
                tensor: "token states",
                found: vec![1, shape.tokens, width],
                expected: format!("(1, T, {})", self.config.cross_attention_dim),
            });
        }
        if let (Some(adapter), Some(image)) = (adapter, &conditioning.image_tokens) {
            self.check_image(adapter, image)?;
        }
        let project = || -> Result<_> {
            let mut given = InputList::default();
            let tokens = given.host(match states.as_slice() {
                [states] => states.clone(),
                several => HostTensor::cat(several, 2)?,
            });
            let added = match (&conditioning.pooled, &conditioning.size_conditions) {
                (Some(pooled), Some(sizes)) => self.time.pooled_and_sizes(pooled, sizes, &self.config)?,
                _ => None,
            };
            let added = added.map(|added| given.host(added));
            let mut results = self.preparations.run((), given, |inputs| {
                let tokens = inputs.take(tokens)?;
                let mut results = Vec::with_capacity(2 * self.cross_attns + 1);
                for cross_attn in self.cross_attns() {
                    results.extend(cross_attn.project_kv(&tokens)?.into_results());
                }
                if let Some(added) = added {
                    results.push(self.time.embed_added(&inputs.take(added)?)?);
                }
                Ok(results)
            })?;
            let added = added.and_then(|_| results.pop());
            let image = match (adapter, &conditioning.image_tokens) {
                (Some(adapter), Some(ImageTokens { tokens, scale })) if *scale != 0.0 => {
                    Some(adapter.project(tokens, *scale)?.into())
                }
                _ => None,
            };
            let kv = KeyValues::from_results(results).into();
            Ok(PreparedConditioning::new(kv, added, shape).with_image(image))
        };
        on_pool(project).during("projecting the conditioning's keys and values")
    }

    /// Whether an adapter is for this network, and these are its tokens.
    fn check_image(&self, adapter: &IpAdapter, image: &ImageTokens) -> std::result::Result<(), ModelError> {
        let (found, expected) = (adapter.layer_count(), self.cross_attns);
        if found != expected {
            return Err(ModelError::Shape {
                tensor: "layers of the IP-Adapter",
                found: vec![found],
                expected: format!("({expected})"),
            });
        }
        let (count, width) = (adapter.config().tokens, adapter.config().width);
        if image.tokens.dims() != [1, count, width] {
            return Err(ModelError::Shape {
                tensor: "image tokens",
                found: image.tokens.dims().to_vec(),
                expected: format!("(1, {count}, {width})"),
            });
        }
        Ok(())
    }

    /// Bytes that [`UNet::prepare`] allocates for a conditioning of this shape.
    #[must_use]
    pub fn kv_bytes(&self, shape: ConditioningShape) -> u64 {
        let tokens = shape.tokens.saturating_add(shape.image_tokens);
        let bytes = self.cross_attns().map(|cross_attn| cross_attn.kv_bytes(tokens));
        bytes.fold(0, u64::saturating_add)
    }

    fn cross_attns(&self) -> impl Iterator<Item = &Attention> {
        let down = self.down.iter().flat_map(DownBlock::transformers);
        let up = self.up.iter().flat_map(UpBlock::transformers);
        let transformers = down.chain([self.mid.transformer()]).chain(up);
        transformers.flat_map(|transformer| transformer.cross_attns())
    }

    fn check(&self, input: &UNetInput<'_>) -> std::result::Result<(), ModelError> {
        input.check(&self.config, self.cross_attns)?;
        let (found, images) = (input.networks.len(), input.timesteps.len());
        let programs = self.predictions.id();
        let fit = input.networks.iter().all(|network| network.programs == programs);
        if fit && (found == 0 || found == images) {
            return Ok(());
        }
        Err(ModelError::Shape {
            tensor: "networks",
            found: vec![found],
            expected: format!("({images}), all of the same programs"),
        })
    }

    /// One prediction for every row, in main memory: (B, out, h, w).
    ///
    /// # Errors
    /// When an input's shape does not fit the configuration, or a guidance embedding comes to a network without one.
    pub fn forward(&self, input: UNetInput<'_>) -> std::result::Result<HostTensor, ModelError> {
        self.check(&input)?;
        on_pool(|| self.predict(input)).during("predicting noise")
    }

    /// What [`UNet::forward`] would take of the device's memory for this input, exactly, and whether there is so much now. None on
    /// the CPU.
    ///
    /// # Errors
    /// As [`UNet::forward`]; nothing is computed.
    pub fn measure(&self, input: UNetInput<'_>) -> std::result::Result<Option<ProgramMemory>, ModelError> {
        self.check(&input)?;
        self.measure_prediction(input).during("measuring a prediction")
    }
}
