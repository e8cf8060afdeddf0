//! `POST /sdapi/v1/extra-single-image`: a picture with longer sides.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pentimento_service::{InputLimits, PictureCall};
use pentimento_types::{ApiKeyId, ImageSource, ModelId};
use serde_json::{Value, json};

use super::error::A1111Error;
use super::fields::{
    EXTRA_SINGLE_IMAGE, EXTRAS_REFUSED, IMAGE, MAX_IMAGE_SIDE, UPSCALER_1, UPSCALING_RESIZE,
};
use super::reader::{image, name_if_given, refuse_others, whole};
use crate::AppState;
use crate::body::{self, ReadBody};
use crate::dialects::field::names;
use crate::dialects::json;
use crate::dialects::lenient::FieldError;

const LIMITS: InputLimits = InputLimits {
    max_side: MAX_IMAGE_SIDE,
    max_pixels: u64::MAX,
    max_bytes: IMAGE.kind.max_bytes as u64,
};

/// The call is held until the picture is there.
pub(super) async fn enlarged(app: &AppState, owner: ApiKeyId, body: ReadBody) -> Result<Value, A1111Error> {
    let read = body::off_thread(move || {
        let copies = json::copies(body.bytes());
        let (bytes, mut memory) = body.with_room(copies)?;
        let mut fields = json::parse_object(&bytes, &names(EXTRA_SINGLE_IMAGE))?;
        drop(bytes);
        refuse_others(EXTRAS_REFUSED, &mut fields)?;
        let times = whole(&UPSCALING_RESIZE, &mut fields)?;
        let model = name_if_given(&UPSCALER_1, ("", &mut fields))?;
        let missing = || FieldError::value(IMAGE.name, "is required: a PNG, JPEG or WebP file in base64");
        let source = image(&IMAGE, &mut fields)?.ok_or_else(missing)?;
        memory.shrink_to(match &source {
            ImageSource::Inline(bytes) => bytes.len(),
            ImageSource::Url(_) => 0,
        });
        let model = model.filter(|name| !name.eq_ignore_ascii_case(UPSCALER_1.kind.default));
        Ok::<_, A1111Error>((times, model.map(ModelId::new), source, memory))
    });
    let (times, model, source, memory) = read.await?;
    let call = PictureCall {
        owner,
        source,
        limits: LIMITS,
        held: Box::new(memory),
    };
    let of_image = |error| A1111Error::OfImage(Box::new(error));
    let life = app.config.modelslab.link_life;
    let enlarged = app.service.enlarge_picture(call, (times, model), life).await;
    let file = app.service.open_link(&enlarged.map_err(of_image)?.path).await?;
    let bytes = app.service.read_linked(&file, 0..file.size).await?;
    Ok(json!({"html_info": "", "image": STANDARD.encode(&bytes)}))
}
