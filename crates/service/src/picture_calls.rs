//! Calls about one picture that make no job: what the safety checker sees in it, and enlarging it.
//!
//! The picture is fetched and decoded as those of jobs are, within the same limits and turns, so that nobody gets more of the
//! server this way. One picture is enlarged at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pentimento_engine::{PipelineError, UpscaleFactor, Upscaler};
use pentimento_types::{
    ApiKeyId, Findings, ImageKey, ImageSource, JobId, RgbImage, SafetyAction, SafetyLevel, SafetyPolicy, Size,
};
use tokio::sync::Semaphore;

use crate::image_codec::{self, Decoding, resized, to_file};
use crate::inner::Inner;
use crate::off_thread::off_thread;
use crate::{Held, InputLimits, Service, ServiceError};

/// Of an enlarged picture: 4096 by 4096, which takes about as long as a job does.
const MAX_ENLARGED_PIXELS: u64 = 4096 * 4096;
/// Callers that wait for the one whose picture is being enlarged. One more is told to come back.
const WAITING: usize = 8;
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

/// Who enlarges.
#[derive(Debug)]
pub(crate) struct Enlarging {
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

impl Default for Enlarging {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(1 + WAITING)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
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

    /// Enlarges a picture `times` times, 1 to 4, and keeps the result as long as those of jobs. A link to it works for `life`,
    /// which is at most `keep_pictures` of the configuration.
    ///
    /// # Errors
    /// Those of an input picture; [`ServiceError::EnlargedTooLarge`], and [`ServiceError::Overloaded`] where others wait.
    pub async fn enlarge_picture(
        &self,
        call: PictureCall,
        times: u32,
        life: Duration,
    ) -> Result<Enlarged, ServiceError> {
        let inner = &self.inner;
        inner.check_open()?;
        let checker = inner.config.safety.policy(SafetyPolicy::Off);
        let checker = inner.checker_files(checker).await?;
        let place = Arc::clone(&inner.enlarging.places).try_acquire_owned();
        let _place = place.map_err(|_| ServiceError::Overloaded)?;
        let PictureCall {
            owner,
            source,
            limits,
            held,
        } = call;
        let (file, decoding) = inner.file_of(source, limits).await?;
        check_enlarged(decoding.size, times)?;
        let turn = Arc::clone(&inner.enlarging.turn).acquire_owned().await;
        let turn = turn.map_err(ServiceError::internal)?;
        let working = enlarging_bytes(decoding.size, times);
        inner.admitted.check(working)?;
        let space = inner
            .admitted
            .room(working)
            .map_err(|_| ServiceError::Overloaded)?;
        let room = inner.room_for(&owner, decoding).await?;
        let all = Arc::clone(inner);
        // It runs on when the caller hangs up, and what it holds with it.
        let (file, size, findings) = off_thread(move || {
            let picture = image_codec::decode(&file, limits)?;
            drop((file, room, held));
            let enlarged = enlarge(picture, times)?;
            let (enlarged, findings) = all
                .safety
                .pass(enlarged, SafetyPolicy::Off, &checker)
                .map_err(ServiceError::SafetyChecker)?;
            let file = to_file(&enlarged)?;
            drop((space, turn));
            Ok((file, enlarged.size(), findings))
        })
        .await?;
        let key = ImageKey::output(ENLARGED, JobId::new(), 0, "png");
        let stored = inner.images.put(&key, file).await;
        stored.map_err(ServiceError::store("store the picture"))?;
        Ok(Enlarged {
            path: format!("/{}", inner.links.sign(&key, inner.clock.wall() + life)),
            size,
            findings,
        })
    }
}

impl Inner {
    /// The file of a call, looked at and not decoded.
    async fn file_of(
        &self,
        source: ImageSource,
        limits: InputLimits,
    ) -> Result<(Bytes, Decoding), ServiceError> {
        let file = match source {
            ImageSource::Inline(bytes) => bytes,
            ImageSource::Url(url) => self
                .fetcher
                .fetch(&url)
                .await
                .map_err(ServiceError::not_fetched)?,
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

/// The picture, what the network makes of it, and its file, which is never much larger.
fn enlarging_bytes(size: Size, times: u32) -> u64 {
    let factor = if times > 2 { 4 } else { 2 };
    size.rgb_bytes() * (1 + 2 * factor * factor)
}

fn enlarge(picture: RgbImage, times: u32) -> Result<RgbImage, ServiceError> {
    let by = |factor| -> Result<RgbImage, PipelineError> { Upscaler::embedded(factor)?.enlarge(&picture) };
    let enlarged = match times {
        ..=1 => return Ok(picture),
        2 => by(UpscaleFactor::Two),
        3.. => by(UpscaleFactor::Four),
    };
    let enlarged = enlarged.map_err(ServiceError::internal)?;
    let size = Size {
        width: picture.size().width * times,
        height: picture.size().height * times,
    };
    // Three times is four times, made smaller.
    if enlarged.size() == size {
        Ok(enlarged)
    } else {
        Ok(resized(&enlarged, size))
    }
}
