//! Pictures as the networks of Real-ESRGAN take and give them: channels last, 0..1.

use pentimento_types::{RgbImage, Size};

use crate::layers::{self, Conv2d, ConvFusion, HostTensor, KernelError, Result, host_tensor};

/// (1, h, w, 3) in 0..1, with lines and columns mirrored at the right and the bottom up to multiples of `multiple`. The edge itself
/// is not repeated, as PyTorch's `reflect` has it, where the picture is large enough for that.
pub(super) fn tensor_of(picture: &RgbImage, multiple: usize) -> Result<HostTensor> {
    let size = picture.size();
    let (width, height) = (size.width as usize, size.height as usize);
    let (wide, high) = (
        width.next_multiple_of(multiple),
        height.next_multiple_of(multiple),
    );
    let inside = |at: usize, length: usize| {
        let mirrored = if at < length {
            at
        } else {
            (2 * length).saturating_sub(2 + at)
        };
        mirrored.min(length - 1)
    };
    let mut values = Vec::with_capacity(wide * high * 3);
    for y in (0..high).map(|y| inside(y, height)) {
        for x in (0..wide).map(|x| inside(x, width)) {
            let at = (y * width + x) * 3;
            let pixel = picture.pixels()[at..at + 3].iter();
            values.extend(pixel.map(|value| f32::from(*value) / 255.0));
        }
    }
    host_tensor(values, &[1, high, wide, 3])
}

/// Writes lines of (1, lines, columns, 3) in 0..1 into `pixels`, the bytes of a picture `width` wide, from line `top` on. What is
/// below or at the right of the picture is left out.
pub(super) fn write_lines(lines: &HostTensor, (pixels, width): (&mut [u8], usize), top: usize) -> Result<()> {
    let columns = lines.dim(2)?;
    let values = lines.flatten_all()?.to_vec1::<f32>()?;
    let found = values.chunks_exact(columns * 3);
    for (line, values) in pixels.chunks_exact_mut(width * 3).skip(top).zip(found) {
        for (byte, value) in line.iter_mut().zip(values) {
            // To the nearest; what is out of range, or no number, becomes an end of it.
            *byte = (value * 255.0).round() as u8;
        }
    }
    Ok(())
}

/// A picture whose bytes are still to be written, `scale` times as large.
pub(super) fn enlarged_size(size: Size, scale: usize) -> Size {
    let scale = scale as u32;
    Size {
        width: size.width * scale,
        height: size.height * scale,
    }
}

/// The picture of these bytes.
pub(super) fn picture_of(size: Size, pixels: Vec<u8>) -> Result<RgbImage> {
    match RgbImage::new(size, pixels) {
        Some(picture) => Ok(picture),
        None => Err(KernelError::mismatch(format!(
            "a picture of {size} cannot be made"
        ))),
    }
}

/// A convolution of an image in main memory, enlarged to a size first where one is given.
pub(super) fn convolve(
    conv: &Conv2d,
    x: &HostTensor,
    upsample: Option<(usize, usize)>,
) -> Result<HostTensor> {
    let fusion = ConvFusion {
        upsample,
        ..ConvFusion::default()
    };
    conv.forward(&layers::Tensor::Host(x.clone()), fusion)?
        .into_host()
}

/// PyTorch's `LeakyReLU(0.2)`.
pub(super) fn leaky_relu(x: &HostTensor) -> Result<HostTensor> {
    Ok(x.maximum(&(x * 0.2)?)?)
}

/// PyTorch's `pixel_unshuffle`, channels last: `times` pixels on a side become channels, those of one colour side by side.
pub(super) fn pixel_unshuffle(x: &HostTensor, times: usize) -> Result<HostTensor> {
    if times == 1 {
        return Ok(x.clone());
    }
    let (_, h, w, c) = x.dims4()?;
    let (h, w) = (h / times, w / times);
    let pixels = x.reshape((h, times, w, times, c))?.permute((0, 2, 4, 1, 3))?;
    Ok(pixels.reshape((1, h, w, c * times * times))?)
}

/// PyTorch's `pixel_shuffle`, channels last.
pub(super) fn pixel_shuffle(x: &HostTensor, times: usize) -> Result<HostTensor> {
    let (_, h, w, c) = x.dims4()?;
    let c = c / (times * times);
    let pixels = x.reshape((h, w, c, times, times))?.permute((0, 3, 1, 4, 2))?;
    Ok(pixels.reshape((1, h * times, w * times, c))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_are_each_others_inverse() {
        let x = (0..96u8).map(f32::from).collect();
        let x = host_tensor(x, &[1, 4, 8, 3]).expect("a tensor");
        let there = pixel_unshuffle(&x, 2).expect("divides");
        assert_eq!(there.dims(), [1, 2, 4, 12]);
        // The four pixels of the first corner, red first.
        let first = there
            .flatten_all()
            .and_then(|t| t.to_vec1::<f32>())
            .expect("values");
        assert_eq!(first[..4], [0., 3., 24., 27.]);
        let back = pixel_shuffle(&there, 2).expect("divides");
        let back = back.flatten_all().and_then(|t| t.to_vec1::<f32>());
        let expected: Vec<f32> = (0..96u8).map(f32::from).collect();
        assert_eq!(back.expect("values"), expected);
    }

    #[test]
    fn a_picture_is_mirrored_up_to_a_multiple() {
        let size = Size { width: 3, height: 1 };
        let picture = RgbImage::new(size, vec![0, 0, 0, 51, 51, 51, 102, 102, 102]).expect("the bytes fit");
        let x = tensor_of(&picture, 4).expect("a tensor");
        assert_eq!(x.dims(), [1, 4, 4, 3]);
        let red = x
            .narrow(3, 0, 1)
            .and_then(|t| t.flatten_all()?.to_vec1::<f32>())
            .expect("values");
        assert_eq!(red[..4], [0.0, 0.2, 0.4, 0.2]);
        // A single line can only be repeated.
        assert_eq!(red[4..8], red[..4]);
    }
}
