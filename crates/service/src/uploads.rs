//! A picture that somebody puts here to name its link in later calls.

use std::sync::Arc;
use std::time::Duration;

use pentimento_types::{ImageFormat, ImageKey, JobId, SafetyPolicy, Size};

use crate::off_thread::off_thread;
use crate::picture_calls::PictureCall;
use crate::{Service, ServiceError, image_codec};

/// Prefix of their names.
const UPLOADED: &str = "upload";

/// An uploaded picture in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// A signed path, as those of [`crate::ImageLink`].
    pub path: String,
    /// What the file is, whatever its sender calls it.
    pub format: ImageFormat,
    /// Its pixels, as they are seen.
    pub size: Size,
}

impl Service {
    /// Keeps a picture as it came, once it is known that it can be read. Its link works for `life`, in `init_image` and the like as
    /// well as for everybody who has it.
    ///
    /// # Errors
    /// Those of an input picture; [`ServiceError::KeptPicturesFull`], [`ServiceError::ShuttingDown`], and
    /// [`ServiceError::UnsafePicture`] where the operator wants every picture looked at.
    pub async fn upload_picture(&self, call: PictureCall, life: Duration) -> Result<Uploaded, ServiceError> {
        let inner = &self.inner;
        inner.check_open()?;
        let PictureCall {
            owner,
            source,
            limits,
            held,
        } = call;
        let policy = inner.config.safety.policy(SafetyPolicy::Off);
        let checker = inner.checker_files(policy).await?;
        let (file, decoding) = inner.file_of(source, limits).await?;
        let room = inner.room_for(&owner, decoding).await?;
        let all = Arc::clone(inner);
        let (file, size, format) = off_thread(move || {
            let picture = image_codec::decode(&file, limits)?;
            if policy != SafetyPolicy::Off {
                // A link of this server would hand it out.
                let found = all.safety.look(&picture, None, &checker);
                if found.map_err(ServiceError::SafetyChecker)?.nsfw == Some(true) {
                    return Err(ServiceError::UnsafePicture);
                }
            }
            let format = image_codec::format_of(&file).ok_or(ServiceError::ImageEmpty)?;
            let size = picture.size();
            drop((picture, room));
            Ok((file, size, format))
        })
        .await?;
        let key = ImageKey::output(UPLOADED, JobId::new(), 0, format.extension());
        let path = inner.keep_picture(&owner, (key, file), life).await?;
        drop(held);
        Ok(Uploaded { path, format, size })
    }
}
