//! Why an image file is refused, in words that are safe to show to whoever sent it.

use pentimento_types::Size;

use crate::{InputLimits, ServiceError};

/// A decoder's own words are repeated up to this length.
const LONGEST_DETAIL: usize = 160;

pub(super) fn undecodable(detail: impl Into<String>) -> ServiceError {
    ServiceError::ImageUndecodable {
        detail: detail.into(),
    }
}

/// The decoder's own text, short and on one line.
pub(super) fn damaged(format: &str, error: &dyn std::fmt::Display) -> ServiceError {
    let text: String = error
        .to_string()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_DETAIL)
        .collect();
    undecodable(format!("the {format} file is damaged or not whole ({text})"))
}

/// The size that a header names, when it is within the limits.
pub(super) fn check_size((width, height): (u32, u32), limits: InputLimits) -> Result<Size, ServiceError> {
    let size = Size { width, height };
    if width == 0 || height == 0 {
        return Err(undecodable("a picture needs at least one pixel"));
    }
    if width > limits.max_side || height > limits.max_side {
        return Err(ServiceError::ImageTooManyPixels {
            size,
            max_side: limits.max_side,
        });
    }
    let (pixels, limit) = (size.pixels(), limits.max_pixels);
    if pixels > limit {
        return Err(ServiceError::ImageMegapixels { size, pixels, limit });
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_what_is_beyond_a_limit_is_refused() {
        let limits = InputLimits {
            max_side: 2048,
            max_pixels: 1_000_000,
            max_bytes: 1,
        };
        assert!(matches!(
            check_size((0, 5), limits),
            Err(ServiceError::ImageUndecodable { .. })
        ));
        assert!(check_size((1000, 1000), limits).is_ok());
        let refused = check_size((1000, 1001), limits).unwrap_err().to_string();
        for part in [
            "1001000 pixels",
            "1000x1001",
            "1000000",
            "PENTIMENTO_MAX_IMAGE_MEGAPIXELS",
        ] {
            assert!(refused.contains(part), "{refused}");
        }
        assert!(matches!(
            check_size((2049, 1), limits),
            Err(ServiceError::ImageTooManyPixels { .. })
        ));
    }
}
