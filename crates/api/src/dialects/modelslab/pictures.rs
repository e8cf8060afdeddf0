//! The calls about one picture that make no job: `nsfw_image_check`, `super_resolution` and `upload_image`.

use pentimento_service::PictureCall;
use pentimento_types::{Clock as _, ImageFormat, ImageSource, ModelId, SystemClock};
use serde_json::{Value, json};

use super::error::ModelsLabError;
use super::fields::{
    BASE64_IMAGE, ENLARGED_WEBHOOK, FACE_ENHANCE, IMAGE_TYPE, INIT_IMAGE, SCALE, SUPER_RESOLUTION, THRESHOLD,
    UPSCALER, URL,
};
use super::number;
use super::opened_call::{LIMITS, OpenedCall};
use super::reader::{Reader, is_nothing};
use crate::AppState;
use crate::base_url::BaseUrl;
use crate::body;
use crate::dialects::lenient::FieldError;

/// Whether an image is unsafe.
pub(super) async fn nsfw_image_check(app: &AppState, call: OpenedCall) -> Result<Value, ModelsLabError> {
    let (threshold, source, call) = read(call, |reader| {
        let threshold = reader.number_if_given(&THRESHOLD);
        // In range, so that it fits.
        let thousandths = threshold.map(|threshold| (threshold * 1000.0).round() as u16);
        (thousandths, reader.required_image(&INIT_IMAGE))
    })
    .await?;
    let shown = match &source {
        ImageSource::Url(url) => url.clone(),
        // A file is not sent back, as in `meta`.
        ImageSource::Inline(_) => "base64".to_owned(),
    };
    let found = app.service.check_picture(call(source), threshold).await;
    let found = found.map_err(of_image(INIT_IMAGE.name))?;
    let mut reply = json!({
        "images": shown,
        "has_nsfw_concept": [found.nsfw == Some(true)],
        // Not in the original.
        "score": found.score.map(|score| f64::from(score) / 1000.0),
    });
    if found.score.is_none() && threshold.is_some() {
        reply["warning"] =
            "threshold has no effect: the safety checker of this server has thresholds of its own.".into();
    }
    Ok(reply)
}

/// An image with longer sides. The call is held until it is there.
pub(super) async fn super_resolution(
    app: &AppState,
    base: &BaseUrl,
    call: OpenedCall,
) -> Result<Value, ModelsLabError> {
    let started = SystemClock.now();
    let ((scale, model, warning), source, call) = read(call, |reader| {
        let scale = reader.whole(&SCALE);
        let model = reader.name(&UPSCALER).map(ModelId::new);
        reader.flag(&FACE_ENHANCE);
        if reader
            .text(ENLARGED_WEBHOOK.name)
            .is_some_and(|address| !is_nothing(address.trim()))
        {
            reader.note_effect(ENLARGED_WEBHOOK.effect);
        }
        let warning = reader.no_effect_warning(SUPER_RESOLUTION);
        ((scale, model, warning), reader.required_image(&URL))
    })
    .await?;
    let life = app.config.modelslab.link_life;
    let names_unused = model.is_some() && scale <= 1;
    let enlarged = app
        .service
        .enlarge_picture(call(source), (scale, model), life)
        .await;
    let enlarged = enlarged.map_err(of_image(URL.name))?;
    let took = SystemClock.now().saturating_duration_since(started);
    let mut reply = json!({
        "status": "success",
        "generationTime": took.as_secs_f64(),
        // There is no job behind it that could be fetched.
        "id": number::draw(),
        // One address and no list, as upstream.
        "output": base.join(&enlarged.path),
        "meta": {
            "scale": scale,
            "W": enlarged.size.width,
            "H": enlarged.size.height,
        },
    });
    if let Some(found) = enlarged.findings.nsfw {
        reply["nsfw_content_detected"] = found.into();
    }
    let unused = names_unused.then_some("model_id has no effect at scale 1, which changes nothing.");
    let sentences: Vec<&str> = warning.as_deref().into_iter().chain(unused).collect();
    if !sentences.is_empty() {
        reply["warning"] = sentences.join(" ").into();
    }
    Ok(reply)
}

/// Keeps an image as long as links live, so that later calls can name its address.
pub(super) async fn upload_image(
    app: &AppState,
    base: &BaseUrl,
    call: OpenedCall,
) -> Result<Value, ModelsLabError> {
    let (said, source, call) = read(call, |reader| {
        let said = reader.one_of(&IMAGE_TYPE).and_then(ImageFormat::parse);
        (said, reader.required_image(&BASE64_IMAGE))
    })
    .await?;
    let life = app.config.modelslab.link_life;
    let kept = app.service.upload_picture(call(source), life).await;
    let kept = kept.map_err(of_image(BASE64_IMAGE.name))?;
    let mut reply = json!({
        "status": "success",
        "message": "image uploaded",
        "image_url": base.join(&kept.path),
        // Not in the original.
        "image_type": kept.format.as_str(),
        "W": kept.size.width,
        "H": kept.size.height,
    });
    if let Some(said) = said.filter(|said| *said != kept.format) {
        let (said, found) = (said.as_str(), kept.format.as_str());
        reply["warning"] =
            format!("image_type is {said}, and the file is {found}; it was kept as that.").into();
    }
    Ok(reply)
}

/// Reads the fields on a blocking thread, since one is an image. Result: what was read, the image, and what makes a call of it.
async fn read<T: Send + 'static>(
    call: OpenedCall,
    fields: impl FnOnce(&mut Reader) -> (T, ImageSource) + Send + 'static,
) -> Result<(T, ImageSource, impl FnOnce(ImageSource) -> PictureCall), ModelsLabError> {
    let OpenedCall {
        grant,
        fields: given,
        mut memory,
        ..
    } = call;
    let parsed = body::off_thread(move || {
        let mut reader = Reader::new(given);
        let (read, source) = fields(&mut reader);
        reader.into_ignored()?;
        memory.shrink_to(match &source {
            ImageSource::Inline(bytes) => bytes.len(),
            ImageSource::Url(_) => 0,
        });
        Ok::<_, Vec<FieldError>>((read, source, memory))
    });
    let (read, source, memory) = parsed.await.map_err(ModelsLabError::InvalidFields)?;
    let call = move |source| PictureCall {
        owner: grant.owner,
        source,
        limits: LIMITS,
        held: Box::new(memory),
    };
    Ok((read, source, call))
}

fn of_image(field: &'static str) -> impl FnOnce(pentimento_service::ServiceError) -> ModelsLabError {
    move |error| ModelsLabError::OfImage { field, error }
}
