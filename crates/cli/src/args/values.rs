//! Values that are read from the command line within their ranges.

use pentimento_types::{ImageFormat, LoraRef, ModelId, SchedulerKind};

pub(super) fn unit_interval(text: &str) -> Result<f64, String> {
    number_within(text, 0.0, 1.0)
}

/// Of a picture that is made from noise.
pub(super) fn side(text: &str) -> Result<u32, String> {
    const STEP: u32 = 8;
    const LONGEST: u32 = 8192;
    let side = text.parse().ok().filter(|side: &u32| side.is_multiple_of(STEP));
    side.filter(|side| (STEP..=LONGEST).contains(side))
        .ok_or_else(|| format!("a side is a multiple of {STEP} from {STEP} to {LONGEST}"))
}

pub(super) fn guidance_scale(text: &str) -> Result<f64, String> {
    number_within(text, 0.0, 100.0)
}

/// A name with a colon in it is written with its strength.
pub(super) fn lora(text: &str) -> Result<LoraRef, String> {
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

pub(super) fn scheduler(name: &str) -> Result<SchedulerKind, String> {
    SchedulerKind::parse(name).ok_or_else(|| {
        let names: Vec<&str> = SchedulerKind::ALL.iter().map(|kind| kind.class_name()).collect();
        format!("there is no such scheduler; the names are {}", names.join(", "))
    })
}

pub(super) fn image_format(name: &str) -> Result<ImageFormat, String> {
    ImageFormat::parse(name).ok_or_else(|| "the formats are png, jpeg and webp".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_their_range_are_refused() {
        for bad in ["-0.1", "1.01", "NaN", "inf", "x", ""] {
            assert!(unit_interval(bad).is_err(), "{bad}");
        }
        assert_eq!(unit_interval("0.3"), Ok(0.3));
        assert!(scheduler("Nonsense").unwrap_err().contains("LCMScheduler"));
        assert_eq!(scheduler("ddim"), Ok(SchedulerKind::DDIM));
    }
}
