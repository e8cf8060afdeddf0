//! The images of a call: files of a form, texts, or objects of a JSON body with an `image_url`.

use pentimento_types::ImageSource;

use super::fields::{FILE_ID, IMAGE, IMAGE_URL, IMAGES, IP_ADAPTER, MASK, MAX_IMAGE_BYTES, MAX_IMAGES};
use crate::dialects::field::names;
use crate::dialects::inline_image;
use crate::dialects::json::{Fields, Json};
use crate::dialects::lenient::{FieldError, list, text};

/// What a call shows the model.
pub(super) struct Shown {
    /// The image to start from.
    pub(super) init: ImageSource,
    /// What an IP-Adapter shows beside it.
    pub(super) second: Option<ImageSource>,
}

/// The images under all their names: one to start from, and a second one where there is an adapter for it. More are refused and
/// not left out: models here see no more, and the caller would believe that they do.
pub(super) fn of(fields: &mut Fields, has_adapter: bool) -> Result<Shown, FieldError> {
    let mut found = Vec::new();
    for name in IMAGE.names().chain([IMAGES.name]) {
        let value = fields.take(name);
        let values = if matches!(value, Json::List(_)) {
            list(name, value, MAX_IMAGES)?
        } else {
            vec![value]
        };
        for (at, value) in values.into_iter().enumerate() {
            let place = if at == 0 {
                name.to_owned()
            } else {
                format!("{name}[{at}]")
            };
            found.extend(one(&place, value)?);
        }
    }
    let count = found.len();
    let mut images = found.into_iter();
    let (init, second) = (images.next(), images.next());
    let refuse = |message: String| Err(FieldError::value(IMAGE.name, message));
    let Some(init) = init else {
        return refuse("is required: a PNG, JPEG or WebP file".to_owned());
    };
    match (has_adapter, count) {
        (false, 1) | (true, 2) => Ok(Shown { init, second }),
        (true, _) => refuse(format!(
            "must be two images with {}: one to start from and one for the adapter, got {count}",
            IP_ADAPTER.name
        )),
        (false, _) => refuse(format!(
            "may be one image here, got {count}; send the one to start from, or with it one for an IP-Adapter named in {}",
            IP_ADAPTER.name
        )),
    }
}

/// The mask, where there is one. An empty one is refused: without a mask the whole image would be made anew.
pub(super) fn mask(fields: &mut Fields) -> Result<Option<ImageSource>, FieldError> {
    let mut found = None;
    for name in MASK.names() {
        let value = fields.take(name);
        if value == Json::Null {
            continue;
        }
        let mask = one(name, value)?.ok_or_else(|| {
            FieldError::value(name, "is empty; leave it out where the whole image is to change")
        })?;
        if found.replace(mask).is_some() {
            return Err(FieldError::value(name, "is given twice; send it once"));
        }
    }
    Ok(found)
}

/// One image; None when nothing is there.
pub(super) fn one(place: &str, value: Json) -> Result<Option<ImageSource>, FieldError> {
    if let Json::File(file) = value {
        inline_image::within_limit(place, file.len(), MAX_IMAGE_BYTES)?;
        return Ok((!file.is_empty()).then_some(ImageSource::Inline(file)));
    }
    let value = if let Json::Object(members) = value {
        let mut members = Fields::from_object(members, &names(&[IMAGES.kind.members]));
        if members.take(FILE_ID.name) != Json::Null {
            let message = "cannot be used: no files are kept here; send image_url instead";
            return Err(FieldError::value(&format!("{place}.{}", FILE_ID.name), message));
        }
        let address = members.take(IMAGE_URL.name);
        if address == Json::Null {
            return Err(FieldError::value(
                place,
                format_args!("must have an {}", IMAGE_URL.name),
            ));
        }
        address
    } else {
        value
    };
    let Some(text) = text(place, value)? else {
        return Ok(None);
    };
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(None);
    }
    let head = trimmed.get(..8).unwrap_or(trimmed).to_ascii_lowercase();
    if head.starts_with("http://") || head.starts_with("https://") {
        return Ok(Some(ImageSource::Url(trimmed.to_owned())));
    }
    inline_image::decode(place, text, MAX_IMAGE_BYTES).map(|file| Some(ImageSource::Inline(file)))
}
