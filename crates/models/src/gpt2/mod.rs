//! GPT-2 (Radford et al., 2019; transformers `modeling_gpt2.py`): tokens to the likelihood of the next one.
//!
//! It runs once for a request, over a few dozen tokens, and its speed decides nothing: candle's own operations, in f32 on the CPU.

mod config;
mod tokenizer;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{LayerNorm, Module as _, VarBuilder};

pub use self::config::Gpt2Config;
pub use self::tokenizer::Gpt2Tokenizer;
use crate::ModelError;
use crate::error::During;

const LOADING: &str = "loading the language model";
const RUNNING: &str = "running the language model";

/// The network. It holds no state of any text.
#[derive(Clone, Debug)]
pub struct Gpt2 {
    /// (V, D)
    tokens: Tensor,
    /// (P, D)
    positions: Tensor,
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    /// (V, D); the same as `tokens` in every published file.
    head: Tensor,
    config: Gpt2Config,
}

/// Keys and values of the tokens before, (1, heads, T, D / heads) for each block.
#[derive(Clone, Debug, Default)]
pub struct Gpt2Past(Vec<(Tensor, Tensor)>);

/// A linear layer whose weights lie the other way round, (inputs, outputs): transformers' `Conv1D`.
#[derive(Clone, Debug)]
struct Conv1d {
    weight: Tensor,
    bias: Tensor,
}

#[derive(Clone, Debug)]
struct Block {
    attention_norm: LayerNorm,
    /// D to queries, keys and values.
    attention_in: Conv1d,
    attention_out: Conv1d,
    feed_forward_norm: LayerNorm,
    feed_forward_in: Conv1d,
    feed_forward_out: Conv1d,
    heads: usize,
}

impl Gpt2 {
    /// Loads the network from the root of its files, whose names may begin with `transformer.` or not.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn new(config: &Gpt2Config, vb: &VarBuilder<'_>) -> Result<Self, ModelError> {
        Self::load(config, vb).during(LOADING)
    }

    fn load(config: &Gpt2Config, vb: &VarBuilder<'_>) -> candle_core::Result<Self> {
        let root = if vb.contains_tensor("transformer.wte.weight") {
            vb.pp("transformer")
        } else {
            vb.clone()
        };
        let width = config.n_embd;
        let tokens = get(&root, (config.vocab_size, width), "wte.weight")?;
        let head = if vb.contains_tensor("lm_head.weight") {
            get(vb, (config.vocab_size, width), "lm_head.weight")?
        } else {
            tokens.clone()
        };
        let blocks = (0..config.n_layer).map(|at| Block::load(config, &root.pp("h").pp(at)));
        Ok(Self {
            positions: get(&root, (config.n_positions, width), "wpe.weight")?,
            blocks: blocks.collect::<candle_core::Result<_>>()?,
            final_norm: norm(config, &root.pp("ln_f"))?,
            tokens,
            head,
            config: config.clone(),
        })
    }

    /// Its sizes.
    #[must_use]
    pub const fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// Bytes of all weights.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let Gpt2Config {
            vocab_size,
            n_positions,
            n_embd,
            n_layer,
            n_inner,
            ..
        } = self.config;
        let block = n_embd * (3 * n_embd + n_embd + 2 * n_inner) + 9 * n_embd + n_inner;
        let heads = if self.head.id() == self.tokens.id() { 1 } else { 2 };
        let values = n_embd * (heads * vocab_size + n_positions + 2) + n_layer * block;
        (values * DType::F32.size_in_bytes()) as u64
    }

    /// How likely each token is to come next, behind each of `ids`: (T, V), before the softmax. `past` has the tokens before them
    /// and takes these in.
    ///
    /// # Errors
    /// [`ModelError::Shape`] for no token, one that is not in the vocabulary, or more than the network has places for.
    pub fn logits(&self, ids: &[u32], past: &mut Gpt2Past) -> Result<Tensor, ModelError> {
        let before = self.check(ids, past)?;
        let states = self.states(ids, past, before).during(RUNNING)?;
        self.scores(&states).during(RUNNING)
    }

    /// The last row of [`Self::logits`] alone, (V): what comes behind the whole text.
    ///
    /// # Errors
    /// As there.
    pub fn next_logits(&self, ids: &[u32], past: &mut Gpt2Past) -> Result<Vec<f32>, ModelError> {
        let before = self.check(ids, past)?;
        let mut last = || {
            let states = self.states(ids, past, before)?;
            self.scores(&states.narrow(0, ids.len() - 1, 1)?)?
                .squeeze(0)?
                .to_vec1()
        };
        last().during(RUNNING)
    }

    /// How many tokens there are before these, where all of them fit.
    fn check(&self, ids: &[u32], past: &Gpt2Past) -> Result<usize, ModelError> {
        let before = past.len();
        let fits = before + ids.len() <= self.config.n_positions;
        let known = ids.iter().all(|id| (*id as usize) < self.config.vocab_size);
        if !ids.is_empty() && fits && known {
            return Ok(before);
        }
        Err(ModelError::Shape {
            tensor: "the text",
            found: vec![before, ids.len()],
            expected: format!(
                "1 to {} tokens, each below {}",
                self.config.n_positions, self.config.vocab_size
            ),
        })
    }

    /// (T, D) to (T, V)
    fn scores(&self, states: &Tensor) -> candle_core::Result<Tensor> {
        self.final_norm.forward(states)?.matmul(&self.head.t()?)
    }

    /// (T, D), before the last norm.
    fn states(&self, ids: &[u32], past: &mut Gpt2Past, before: usize) -> candle_core::Result<Tensor> {
        let device = self.tokens.device();
        let ids = Tensor::new(ids, device)?;
        let count = ids.dim(0)?;
        let positions = self.positions.narrow(0, before, count)?;
        let mut x = (self.tokens.index_select(&ids, 0)? + positions)?;
        let mask = causal_mask(count, before, device)?;
        past.0.reserve(self.blocks.len());
        for (at, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &mask, (at, past))?;
        }
        Ok(x)
    }
}

impl Gpt2Past {
    /// Tokens that it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.first().and_then(|(keys, _)| keys.dim(2).ok()).unwrap_or(0)
    }

    /// Whether nothing has been read yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Conv1d {
    fn load(inputs: usize, outputs: usize, vb: &VarBuilder<'_>) -> candle_core::Result<Self> {
        Ok(Self {
            weight: get(vb, (inputs, outputs), "weight")?,
            bias: get(vb, outputs, "bias")?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

impl Block {
    fn load(config: &Gpt2Config, vb: &VarBuilder<'_>) -> candle_core::Result<Self> {
        let (width, inner) = (config.n_embd, config.n_inner);
        let (attention, feed_forward) = (vb.pp("attn"), vb.pp("mlp"));
        Ok(Self {
            attention_norm: norm(config, &vb.pp("ln_1"))?,
            attention_in: Conv1d::load(width, 3 * width, &attention.pp("c_attn"))?,
            attention_out: Conv1d::load(width, width, &attention.pp("c_proj"))?,
            feed_forward_norm: norm(config, &vb.pp("ln_2"))?,
            feed_forward_in: Conv1d::load(width, inner, &feed_forward.pp("c_fc"))?,
            feed_forward_out: Conv1d::load(inner, width, &feed_forward.pp("c_proj"))?,
            heads: config.n_head,
        })
    }

    /// (T, D)
    fn forward(
        &self,
        x: &Tensor,
        mask: &Tensor,
        past: (usize, &mut Gpt2Past),
    ) -> candle_core::Result<Tensor> {
        let attended = self.attend(&self.attention_norm.forward(x)?, mask, past)?;
        let x = (x + attended)?;
        let inner = self
            .feed_forward_in
            .forward(&self.feed_forward_norm.forward(&x)?)?;
        // `gelu_new` is the approximation by tanh, as candle's `gelu` is.
        x + self.feed_forward_out.forward(&inner.gelu()?)?
    }

    fn attend(
        &self,
        x: &Tensor,
        mask: &Tensor,
        (at, past): (usize, &mut Gpt2Past),
    ) -> candle_core::Result<Tensor> {
        let (count, width) = x.dims2()?;
        let size = width / self.heads;
        let all = self.attention_in.forward(x)?;
        // (T, D) to (1, heads, T, D / heads)
        let of = |part: usize| -> candle_core::Result<Tensor> {
            let part = all.narrow(1, part * width, width)?;
            part.reshape((1, count, self.heads, size))?
                .transpose(1, 2)?
                .contiguous()
        };
        let (queries, mut keys, mut values) = (of(0)?, of(1)?, of(2)?);
        if let Some((earlier_keys, earlier_values)) = past.0.get(at) {
            keys = Tensor::cat(&[earlier_keys, &keys], 2)?;
            values = Tensor::cat(&[earlier_values, &values], 2)?;
        }
        let scale = 1.0 / (size as f64).sqrt();
        let scores = (queries.matmul(&keys.transpose(2, 3)?)? * scale)?.broadcast_add(mask)?;
        let shares = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let attended = shares.matmul(&values)?.transpose(1, 2)?.reshape((count, width))?;
        match past.0.get_mut(at) {
            Some(place) => *place = (keys, values),
            None => past.0.push((keys, values)),
        }
        self.attention_out.forward(&attended)
    }
}

/// (T, before + T): no token looks at a later one.
fn causal_mask(count: usize, before: usize, device: &Device) -> candle_core::Result<Tensor> {
    let value = |at: usize| {
        let (row, column) = (at / (before + count), at % (before + count));
        if column > before + row {
            f32::NEG_INFINITY
        } else {
            0.0
        }
    };
    let values: Vec<f32> = (0..count * (before + count)).map(value).collect();
    Tensor::from_vec(values, (count, before + count), device)
}

fn norm(config: &Gpt2Config, vb: &VarBuilder<'_>) -> candle_core::Result<LayerNorm> {
    let weight = get(vb, config.n_embd, "weight")?;
    let bias = get(vb, config.n_embd, "bias")?;
    Ok(LayerNorm::new(weight, bias, config.layer_norm_epsilon))
}

/// In f32, whatever the file has.
fn get<S: Into<candle_core::Shape>>(
    vb: &VarBuilder<'_>,
    shape: S,
    name: &str,
) -> candle_core::Result<Tensor> {
    vb.get(shape.into(), name)?.to_dtype(DType::F32)
}
