//! Calls about one picture that make no job: what the safety checker sees in it, and enlarging it.
//!
//! The picture is fetched and decoded as those of jobs are, within the same limits and turns, so that nobody gets more of the
//! server this way. One picture is enlarged at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pentimento_catalog::ModelEntry;
use pentimento_engine::{UpscaleFactor, Upscaler};
use pentimento_types::{
    ApiKeyId, Findings, ImageFormat, ImageKey, ImageSource, JobId, ModelId, RgbImage, SafetyAction,
    SafetyLevel, SafetyPolicy, Size, describe_chain,
};

use crate::image_codec::{
    self, Decoding, Origin, Provenance, SourceType, encode_enlarged, read_provenance,
    read_provenance_and_pixels, resized, with_watermark,
};
use crate::inner::Inner;
use crate::named_models::find;
use crate::off_thread::off_thread;
use crate::{Held, InputLimits, ModelRole, Service, ServiceError};

/// Of an enlarged picture: 4096 by 4096, which takes about as long as a job does.
const MAX_ENLARGED_PIXELS: u64 = 4096 * 4096;
/// Prefix of the enlarged pictures' names.
const ENLARGED: &str = "super_resolution";

/// A picture that somebody sends to have something done with it at once.
pub struct PictureCall {
    /// Who sends it.
    pub owner: ApiKeyId,
    /// The file or its address.
    pub source: ImageSource,
    /// The dialect's limits; the server's own hold beside them.
    pub limits: InputLimits,
    /// What the file holds of the caller's memory; given back when the file is not needed any more.
    pub held: Held,
}

impl std::fmt::Debug for PictureCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PictureCall")
            .field("owner", &self.owner)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// An enlarged picture in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enlarged {
    /// A signed path, as those of [`crate::ImageLink`].
    pub path: String,
    /// Its pixels.
    pub size: Size,
    /// What was found in it, where the operator wants every picture looked at.
    pub findings: Findings,
}

impl Service {
    /// Whether a picture is unsafe, by the server's threshold or by the caller's own in thousandths.
    ///
    /// # Errors
    /// Those of an input picture, and [`ServiceError::SafetyChecker`].
    pub async fn check_picture(
        &self,
        call: PictureCall,
        threshold: Option<u16>,
    ) -> Result<Findings, ServiceError> {
        let PictureCall {
            owner,
            source,
            limits,
            held,
        } = call;
        let checker = self.inner.checker_files(SafetyPolicy::On {
            action: SafetyAction::default(),
            level: SafetyLevel::default(),
        });
        let checker = checker.await?;
        let (file, decoding) = self.inner.file_of(source, limits).await?;
        let room = self.inner.room_for(&owner, decoding).await?;
        let inner = Arc::clone(&self.inner);
        off_thread(move || {
            let picture = image_codec::decode(&file, limits)?;
            drop((file, held));
            let found = inner.safety.look(&picture, threshold, &checker);
            drop(room);
            found.map_err(ServiceError::SafetyChecker)
        })
        .await
    }

    /// Enlarges a picture `times` times, 1 to 4, with the catalogue's `model` or the small network inside the binary, and keeps the
    /// result as long as those of jobs. A link to it works for `life`, which is at most `keep_pictures` of the configuration.
    ///
    /// # Errors
    /// Those of an input picture and the `Model…` variants; [`ServiceError::EnlargedTooLarge`], [`ServiceError::KeptPicturesFull`], and
    /// [`ServiceError::Overloaded`] where others wait.
    pub async fn enlarge_picture(
        &self,
        call: PictureCall,
        (times, model): (u32, Option<ModelId>),
        life: Duration,
    ) -> Result<Enlarged, ServiceError> {
        let inner = &self.inner;
        inner.check_open()?;
        let policy = inner.config.safety.policy(SafetyPolicy::Off);
        let checker = inner.checker_files(policy).await?;
        let model = match model {
            Some(name) => {
                let entry = find(&inner.catalog, ModelRole::Upscaler, &name)?;
                let wanted = (times > 1).then_some((ModelRole::Upscaler, entry));
                let located = inner.usable(wanted.into_iter().collect()).await?;
                located.into_iter().next()
            }
            None => None,
        };
        let PictureCall {
            owner,
            source,
            limits,
            held,
        } = call;
        // Before a place is taken, which whoever fetches slowly would hold.
        let (file, decoding) = inner.file_of(source, limits).await?;
        check_enlarged(decoding.size, times)?;
        let _place = inner.enlarging.place(&owner)?;
        let turn = Arc::clone(&inner.enlarging.turn).acquire_owned().await;
        let turn = turn.map_err(ServiceError::internal)?;
        let upscaler = off_thread(move || upscaler(model.as_deref(), times)).await?;
        if let Some(upscaler) = &upscaler {
            // What the network makes, before it is brought to the size that is asked for.
            check_enlarged(decoding.size, upscaler.scale())?;
        }
        let working = enlarging_bytes(decoding.size, times, &upscaler);
        inner.admitted.check(working)?;
        let space = inner
            .admitted
            .room(working)
            .map_err(|_| ServiceError::Overloaded)?;
        let room = inner.room_for(&owner, decoding).await?;
        let all = Arc::clone(inner);
        // Between two pieces of its work it is seen that the caller has hung up.
        let waited_for = Arc::new(AtomicBool::new(true));
        let _waiting = Waiting(Arc::clone(&waited_for));
        let (file, size, findings) = off_thread(move || {
            let picture = image_codec::decode(&file, limits)?;
            let origin = read_provenance(&file);
            // An enlarged picture is made from it; one of the same size is it, in another file.
            let is_enlarged = upscaler.is_some();
            let signer = all.signer.as_ref().filter(|_| is_enlarged);
            let made_from = signer.map(|signer| Origin {
                source_type: SourceType::AlgorithmicallyEnhanced,
                parent: signer.parent(&file),
            });
            // A manifest of it is never larger, and counts as it did.
            let keeps = made_from.as_ref().is_some_and(|origin| origin.parent.is_some());
            let _held = keeps.then_some(held);
            drop((file, room));
            let enlarged = enlarge(picture, &upscaler, times, &|| waited_for.load(Ordering::Relaxed))?;
            let passed = all.safety.pass(enlarged, policy, &checker);
            let (enlarged, findings) = passed.map_err(ServiceError::SafetyChecker)?;
            let enlarged = if all.config.watermark && is_enlarged {
                with_watermark(enlarged)
            } else {
                enlarged
            };
            let file = encode_enlarged(&enlarged, &origin, (is_enlarged, all.config.marks))?;
            let file = all.signed(file, ImageFormat::Png, made_from.as_ref())?;
            drop((space, turn));
            Ok((file, enlarged.size(), findings))
        })
        .await?;
        let key = ImageKey::output(ENLARGED, JobId::new(), 0, "png");
        Ok(Enlarged {
            path: inner.keep_picture(&owner, (key, file), life).await?,
            size,
            findings,
        })
    }
}

impl Service {
    /// What a file of any origin says of where its picture comes from, and whether its pixels have the watermark. Files that are no
    /// picture, or a larger one than the server takes, are looked at without their pixels.
    ///
    /// # Errors
    /// [`ServiceError::Overloaded`] and its like, where there is no room to decode it.
    pub async fn provenance_of(
        &self,
        owner: &ApiKeyId,
        file: Bytes,
        held: Held,
    ) -> Result<Provenance, ServiceError> {
        let limits = InputLimits {
            max_side: u32::MAX,
            max_pixels: self.inner.config.max_image_pixels,
            max_bytes: u64::MAX,
        };
        let decoding = image_codec::look_at(&file, limits)
            .ok()
            .filter(|decoding| self.inner.check_decoding(*decoding).is_ok());
        // Closed by nobody.
        let turn = Arc::clone(&self.inner.looking_for_marks)
            .acquire_owned()
            .await
            .ok();
        let room = match decoding {
            Some(decoding) => {
                let decoding = Decoding {
                    working_bytes: decoding
                        .working_bytes
                        .saturating_add(image_codec::MARK_SEARCH_BYTES),
                    ..decoding
                };
                Some(self.inner.room_for(owner, decoding).await?)
            }
            None => None,
        };
        off_thread(move || {
            // It goes on when the caller hangs up, with what it holds.
            let (_held, _turn) = (held, turn);
            let Some(room) = room else {
                return Ok(read_provenance(&file));
            };
            let found = read_provenance_and_pixels(&file, limits);
            drop(room);
            Ok(found)
        })
        .await
    }
}

impl Inner {
    /// The file of a call, looked at and not decoded.
    pub(crate) async fn file_of(
        &self,
        source: ImageSource,
        limits: InputLimits,
    ) -> Result<(Bytes, Decoding), ServiceError> {
        let file = match source {
            ImageSource::Inline(bytes) => bytes,
            ImageSource::Url(url) => self.file_at(&url, limits.max_bytes).await?,
        };
        let limits = InputLimits {
            max_pixels: limits.max_pixels.min(self.config.max_image_pixels),
            ..limits
        };
        let decoding = image_codec::look_at(&file, limits)?;
        self.check_decoding(decoding)?;
        Ok((file, decoding))
    }
}

fn check_enlarged(size: Size, times: u32) -> Result<(), ServiceError> {
    let pixels = size.pixels().saturating_mul(u64::from(times).pow(2));
    if pixels > MAX_ENLARGED_PIXELS {
        let limit = MAX_ENLARGED_PIXELS;
        return Err(ServiceError::EnlargedTooLarge { size, times, limit });
    }
    Ok(())
}

/// The network that enlarges, read anew for each call: that takes a moment beside what it computes. None where the size stays.
fn upscaler(model: Option<&ModelEntry>, times: u32) -> Result<Option<Upscaler>, ServiceError> {
    let upscaler = match (model, times) {
        (_, ..=1) => return Ok(None),
        (Some(entry), _) => Upscaler::open(entry).map_err(|error| {
            tracing::warn!(model = %entry.name, error = describe_chain(&error), "an upscaler cannot be used");
            ServiceError::ModelUnavailable {
                role: ModelRole::Upscaler,
                name: entry.name.clone(),
                reason: "its file is no upscaler that can be used".to_owned(),
            }
        })?,
        (None, 2) => Upscaler::embedded(UpscaleFactor::Two).map_err(ServiceError::internal)?,
        (None, 3..) => Upscaler::embedded(UpscaleFactor::Four).map_err(ServiceError::internal)?,
    };
    Ok(Some(upscaler))
}

/// The picture, what the network makes of it, the result and its file, which is never much larger; and what is computed with.
fn enlarging_bytes(size: Size, times: u32, upscaler: &Option<Upscaler>) -> u64 {
    let (scale, working) = match upscaler {
        Some(upscaler) => (u64::from(upscaler.scale()), upscaler.working_bytes(size)),
        None => (1, 0),
    };
    let times = u64::from(times);
    let own = if scale == times { 0 } else { scale * scale };
    size.rgb_bytes() * (1 + own + 2 * times * times) + working
}

/// Says no more when it is dropped.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn enlarge(
    picture: RgbImage,
    upscaler: &Option<Upscaler>,
    times: u32,
    goes_on: &(dyn Fn() -> bool + Sync),
) -> Result<RgbImage, ServiceError> {
    let Some(upscaler) = upscaler else {
        return Ok(picture);
    };
    let enlarged = upscaler
        .enlarge(&picture, goes_on)
        .map_err(ServiceError::internal)?;
    let size = Size {
        width: picture.size().width * times,
        height: picture.size().height * times,
    };
    // A network has one scale: three times is four times, made smaller.
    if enlarged.size() == size {
        Ok(enlarged)
    } else {
        Ok(resized(&enlarged, size))
    }
}
