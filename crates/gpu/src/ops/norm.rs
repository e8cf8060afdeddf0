//! Normalisation.

use super::record::{Record, THREADS};
use crate::data::{DType, HostData};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Numbers of a chunk of which the moments are taken together, about.
const CHUNK: usize = 1 << 13;

/// Chunks of a row, at most: each block of the second pass reads the moments of all of them.
const CHUNKS: usize = 128;

/// Numbers that a block of the second pass writes, about.
const APPLIED: usize = 1 << 13;

/// A group norm (Wu and He, 2018) of images (B, …, C).
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f32,
}

impl GroupNorm {
    /// Of C = `weight`'s length channels in `groups` equal groups; `weight` and `bias` (C,) stay in f32.
    ///
    /// # Errors
    /// When the lengths do not fit, or as [`Tensor::upload`].
    pub fn new(gpu: &Gpu, weight: &[f32], bias: &[f32], groups: usize, eps: f32) -> Result<Self> {
        let channels = weight.len();
        if channels == 0 || bias.len() != channels || groups == 0 || !channels.is_multiple_of(groups) {
            let what = format!("{groups} groups of {channels} channels, {} biases", bias.len());
            return Err(Error::operands("group norm", what));
        }
        Ok(Self {
            weight: Tensor::upload(gpu, &[channels], HostData::F32(weight))?,
            bias: Tensor::upload(gpu, &[channels], HostData::F32(bias))?,
            groups,
            eps,
        })
    }

    /// Bytes of its weights.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.weight.size_bytes() + self.bias.size_bytes()
    }

    /// The norm of `x` (B, …, C), then SiLU if `silu`. Sums are those of f32 differences, cut by the row's shape only.
    ///
    /// # Errors
    /// When the shape does not fit, or `x` is no float tensor of the program.
    pub fn forward(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        self.forward_joined(x, None, silu)
    }

    /// As [`GroupNorm::forward`], for the channels of `x` (B, …, C) and then those of `skip` (B, …, D), which need not be
    /// joined first. Result: (B, …, C + D).
    ///
    /// # Errors
    /// As [`GroupNorm::forward`].
    pub fn forward_joined(&self, x: &Tensor, skip: Option<&Tensor>, silu: bool) -> Result<Tensor> {
        let record = self.record([Some(x), skip])?;
        let dtype = record.float(std::iter::once(x).chain(skip))?;
        let image = self.image(&record, x, skip)?;
        let moments = record.result(&[image.rows, image.chunks(), self.groups, 2], DType::F32)?;
        record
            .launch("group_norm_sums", dtype)
            .tensor(x)
            .tensor_or_none(skip)
            .tensor(&moments)
            .int(image.split)
            .int(image.channels)
            .int(image.pixels)
            .int(self.groups)
            .int(image.per_chunk)
            .shared_bytes(image.shared_bytes())
            .grid([image.chunks(), image.rows, 1])?;
        self.apply(&record, image, &moments, silu)
    }

    /// `x` + `other`, and the norm of the sum, then SiLU if `silu`. `other` is (B, …, C) as `x`, or (B, 1, C) for all pixels
    /// of a row. The sum is the norm's input as it is stored.
    ///
    /// # Errors
    /// As [`GroupNorm::forward`].
    pub fn add_forward(&self, x: &Tensor, other: &Tensor, silu: bool) -> Result<(Tensor, Tensor)> {
        let record = self.record([Some(x), Some(other)])?;
        let dtype = record.float([x, other])?;
        let image = self.image(&record, x, None)?;
        let is_bias = other.shape() != x.shape();
        let bias_fits =
            other.elements() == image.rows * image.channels && other.shape().first() == x.shape().first();
        record.ensure(!is_bias || bias_fits, "what is added is (B, …, C) or (B, 1, C)")?;
        let sum = record.result(x.shape(), dtype)?;
        let moments = record.result(&[image.rows, image.chunks(), self.groups, 2], DType::F32)?;
        record
            .launch("add_sums", dtype)
            .tensor(x)
            .tensor(other)
            .tensor(&sum)
            .tensor(&moments)
            .flag(is_bias)
            .int(image.channels)
            .int(image.pixels)
            .int(self.groups)
            .int(image.per_chunk)
            .shared_bytes(image.shared_bytes())
            .grid([image.chunks(), image.rows, 1])?;
        let y = self.apply(&record, Image { x: &sum, ..image }, &moments, silu)?;
        Ok((sum, y))
    }

    fn record<'a>(&'a self, operands: [Option<&'a Tensor>; 2]) -> Result<Record<'a>> {
        let own = [&self.weight, &self.bias];
        Record::new("group norm", operands.into_iter().flatten().chain(own))
    }

    fn image<'a>(&self, record: &Record<'_>, x: &'a Tensor, skip: Option<&'a Tensor>) -> Result<Image<'a>> {
        let [rows, places @ .., split] = x.shape() else {
            return Err(record.mismatch("(B, …, C) is needed"));
        };
        let skipped = match skip.map(Tensor::shape) {
            None => 0,
            Some([their_rows, their_places @ .., channels])
                if (their_rows, their_places) == (rows, places) =>
            {
                *channels
            }
            Some(_) => return Err(record.mismatch("both images need the same pixels")),
        };
        let (pixels, channels): (usize, usize) = (places.iter().product(), split + skipped);
        let wanted = self.weight.elements();
        let fits = channels == wanted && pixels > 0;
        record.ensure(fits, format_args!("pixels of {wanted} channels are needed"))?;
        Ok(Image {
            x,
            skip,
            split: *split,
            rows: *rows,
            pixels,
            channels,
            per_chunk: (CHUNK / channels).max(1).max(pixels.div_ceil(CHUNKS)),
        })
    }

    fn apply(&self, record: &Record<'_>, image: Image<'_>, moments: &Tensor, silu: bool) -> Result<Tensor> {
        let (x, channels) = (image.x, image.channels);
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = channels;
        }
        let y = record.result(&shape, x.dtype())?;
        let per_block = (APPLIED / channels).max(1);
        record
            .launch("group_norm_apply", x.dtype())
            .tensor(x)
            .tensor_or_none(image.skip)
            .tensor(moments)
            .tensor(&self.weight)
            .tensor(&self.bias)
            .tensor(&y)
            .int(image.split)
            .int(channels)
            .int(image.pixels)
            .int(self.groups)
            .int(image.chunks())
            .int(image.per_chunk)
            .int(per_block)
            .float(self.eps)
            .flag(silu)
            .shared_bytes(image.shared_bytes())
            .grid([image.pixels.div_ceil(per_block), image.rows, 1])?;
        Ok(y)
    }
}

/// What is normalised.
#[derive(Clone, Copy, Debug)]
struct Image<'a> {
    x: &'a Tensor,
    /// The channels behind those of `x`.
    skip: Option<&'a Tensor>,
    /// Channels of `x`.
    split: usize,
    rows: usize,
    pixels: usize,
    channels: usize,
    /// Pixels of a chunk.
    per_chunk: usize,
}

impl Image<'_> {
    fn chunks(self) -> usize {
        self.pixels.div_ceil(self.per_chunk)
    }

    /// Two floats for each channel.
    fn shared_bytes(self) -> usize {
        2 * self.channels * size_of::<f32>()
    }
}

/// A layer norm (Ba et al., 2016) of lines (…, D).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// Of D = `weight`'s length numbers; `weight` and `bias` (D,) stay in f32.
    ///
    /// # Errors
    /// When the lengths differ, or as [`Tensor::upload`].
    pub fn new(gpu: &Gpu, weight: &[f32], bias: &[f32], eps: f32) -> Result<Self> {
        let width = weight.len();
        Ok(Self {
            weight: Tensor::upload(gpu, &[width], HostData::F32(weight))?,
            bias: Tensor::upload(gpu, &[width], HostData::F32(bias))?,
            eps,
        })
    }

    /// Bytes of its weights.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.weight.size_bytes() + self.bias.size_bytes()
    }

    /// The norm of each line of `x` (…, D).
    ///
    /// # Errors
    /// When the shape does not fit, or `x` is no float tensor of the program.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let record = Record::new("layer norm", [x, &self.weight, &self.bias])?;
        let dtype = record.float([x])?;
        let width = self.weight.elements();
        let fits = width > 0 && x.shape().last() == Some(&width) && self.bias.elements() == width;
        record.ensure(fits, format_args!("lines of {width} numbers are needed"))?;
        let lines = x.elements() / width;
        let y = record.result(x.shape(), dtype)?;
        record
            .launch("layer_norm", dtype)
            .tensor(x)
            .tensor(&self.weight)
            .tensor(&self.bias)
            .tensor(&y)
            .int(lines)
            .int(width)
            .float(self.eps)
            .threads(THREADS)
            .grid([lines.div_ceil(THREADS as usize / 32), 1, 1])?;
        Ok(y)
    }
}
