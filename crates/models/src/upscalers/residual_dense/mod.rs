//! A residual dense network that enlarges pictures (Zhang et al., 2018), in the small form of `@upscalerjs/esrgan-slim`: two
//! blocks of one dense layer each. Values are those of bytes, 0..255, in and out. It is always on the CPU.
//!
//! A picture is enlarged in tiles, so that memory does not grow with it. No pixel of a result depends on more than [`HALO`]
//! pixels around it, which each tile brings along, so that the tiles give what the whole picture would.

mod wide_conv;

use pentimento_types::RgbImage;

use self::wide_conv::WideConv;
use super::picture::{enlarged_size, picture_of};
use super::{GoesOn, check};
use crate::ModelError;
use crate::error::During;
use crate::keras_file::KerasFile;
use crate::layers::{
    Conv2d, ConvFusion, HostTensor, Linear, Result, Tensor, host_tensor, join_channels, on_pool, relu,
};

/// Pixels around a pixel that have a part in its result: one for each 3x3 convolution on the longest path, two for the 5x5
/// one, and the last, of enlarged pixels, counted as a whole one.
const HALO: usize = 10;
/// Side of a tile without its halo: at four times the size, the widest tensors of one hold 70 MB.
const TILE: usize = 128;

/// The network for one scale.
#[derive(Debug)]
pub struct ResidualDense {
    scale: usize,
    first: Conv2d,
    second: Conv2d,
    blocks: [DenseBlock; 2],
    /// GFF_1 and GFF_2: all blocks' results to one.
    fuse: (Linear, Conv2d),
    /// UPN1 to UPN3.
    up: (WideConv, Conv2d, Conv2d),
    last: Conv2d,
}

/// A convolution whose result stands beside its input, and a 1x1 convolution of both that is added to the input.
#[derive(Debug)]
struct DenseBlock {
    conv: Conv2d,
    fuse: Linear,
}

impl ResidualDense {
    /// Reads the network that enlarges `scale` times from a file of safetensors with Keras' names.
    ///
    /// # Errors
    /// When the file is none, or a tensor is missing or has another shape.
    pub fn from_safetensors(bytes: &[u8], scale: usize) -> std::result::Result<Self, ModelError> {
        Self::load(bytes, scale).during("loading the upscaler")
    }

    fn load(bytes: &[u8], scale: usize) -> Result<Self> {
        let file = KerasFile::read(bytes)?;
        let block = |number: usize| -> Result<DenseBlock> {
            Ok(DenseBlock {
                conv: file.conv(&format!("F_{number}_1"))?,
                fuse: file.pointwise(&format!("LFF_{number}"))?,
            })
        };
        Ok(Self {
            scale,
            first: file.conv("F_m1")?,
            second: file.conv("F_0")?,
            blocks: [block(1)?, block(2)?],
            fuse: (file.pointwise("GFF_1")?, file.conv("GFF_2")?),
            up: (
                WideConv::load(&file, "UPN1")?,
                file.conv("UPN2")?,
                file.conv("UPN3")?,
            ),
            last: file.conv("SR")?,
        })
    }

    /// How many times larger a result's sides are.
    #[must_use]
    pub const fn scale(&self) -> usize {
        self.scale
    }

    /// The enlarged picture. Time grows with its pixels, memory only by the picture itself.
    ///
    /// # Errors
    /// When a tensor operation fails, or `goes_on` says no.
    pub fn enlarge(
        &self,
        picture: &RgbImage,
        goes_on: GoesOn<'_>,
    ) -> std::result::Result<RgbImage, ModelError> {
        self.in_tiles(picture, TILE, goes_on)
            .during("running the upscaler")
    }

    fn in_tiles(&self, picture: &RgbImage, tile: usize, goes_on: GoesOn<'_>) -> Result<RgbImage> {
        let size = picture.size();
        let (width, height) = (size.width as usize, size.height as usize);
        let scale = self.scale;
        let mut pixels = vec![0; width * height * 3 * scale * scale];
        for top in (0..height).step_by(tile) {
            for left in (0..width).step_by(tile) {
                check(goes_on)?;
                let rows = Span::around(top, tile, height);
                let columns = Span::around(left, tile, width);
                let enlarged = on_pool(|| self.forward(cut(picture, &rows, &columns)?))?;
                let enlarged = rows.inner(&enlarged, 1, scale)?;
                let enlarged = columns.inner(&enlarged, 2, scale)?.contiguous()?;
                let values = enlarged.flatten_all()?.to_vec1::<f32>()?;
                let line = columns.size * scale * 3;
                for (row, values) in values.chunks_exact(line).enumerate() {
                    let at = ((top * scale + row) * width + left) * scale * 3;
                    for (pixel, value) in pixels[at..at + line].iter_mut().zip(values) {
                        // To the nearest; what is out of range, or no number, becomes an end of it.
                        *pixel = value.round() as u8;
                    }
                }
            }
        }
        picture_of(enlarged_size(size, scale), pixels)
    }

    /// `x`: (1, h, w, 3) in 0..255. Result: (1, h·scale, w·scale, 3), about 0..255.
    fn forward(&self, x: HostTensor) -> Result<HostTensor> {
        let x = Tensor::Host(x);
        let (_, h, w, _) = x.dims4()?;
        let plain = ConvFusion::default();
        let shallow = self.first.forward(&x, plain)?;
        let first = self.blocks[0].forward(self.second.forward(&shallow, plain)?)?;
        let second = self.blocks[1].forward(first.clone())?;
        let fused = self.fuse.0.forward(&join_channels(&first, &second)?)?;
        let deep = self.fuse.1.forward(
            &fused,
            ConvFusion {
                residual: Some(&shallow),
                ..plain
            },
        )?;
        let y = relu(self.up.0.forward(&deep)?)?;
        let y = relu(self.up.1.forward(&y, plain)?)?;
        let y = self.up.2.forward(&y, plain)?;
        let fusion = ConvFusion {
            upsample: Some((h * self.scale, w * self.scale)),
            ..plain
        };
        self.last.forward(&y, fusion)?.into_host()
    }
}

impl DenseBlock {
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let grown = relu(self.conv.forward(&x, ConvFusion::default())?)?;
        self.fuse.forward_add(&join_channels(&x, &grown)?, &x)
    }
}

/// Lines of a tile, and of the halo before and after them where the picture has more.
struct Span {
    start: usize,
    before: usize,
    size: usize,
    all: usize,
}

impl Span {
    fn around(start: usize, tile: usize, whole: usize) -> Self {
        let size = tile.min(whole - start);
        let before = HALO.min(start);
        let after = HALO.min(whole - start - size);
        Self {
            start: start - before,
            before,
            size,
            all: before + size + after,
        }
    }

    /// What of an enlarged tile is its own.
    fn inner(&self, enlarged: &HostTensor, axis: usize, scale: usize) -> Result<HostTensor> {
        Ok(enlarged.narrow(axis, self.before * scale, self.size * scale)?)
    }
}

/// (1, rows, columns, 3) in 0..255.
fn cut(picture: &RgbImage, rows: &Span, columns: &Span) -> Result<HostTensor> {
    let width = picture.size().width as usize;
    let mut values = Vec::with_capacity(rows.all * columns.all * 3);
    for y in rows.start..rows.start + rows.all {
        let at = (y * width + columns.start) * 3;
        let line = &picture.pixels()[at..at + columns.all * 3];
        values.extend(line.iter().copied().map(f32::from));
    }
    host_tensor(values, &[1, rows.all, columns.all, 3])
}

#[cfg(test)]
mod tests;
