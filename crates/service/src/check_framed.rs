//! The picture and the mask of a request that is framed, on their way to becoming a job.

use bytes::Bytes;
use pentimento_types::{ApiKeyId, Framing, ImageSource, InputRole, RgbImage};

use crate::framing::{FramedFiles, of_mask_file};
use crate::inner::Inner;
use crate::submit::Checked;
use crate::{InputLimits, ServiceError};

impl Inner {
    /// Fetches, decodes and frames them. Their files stay as they came; what is kept in memory is what will be computed with.
    pub(crate) async fn check_framed(
        &self,
        owner: &ApiKeyId,
        (init, mask): (&ImageSource, Option<&ImageSource>),
        (framing, limits): (Framing, InputLimits),
    ) -> Result<Vec<(InputRole, Checked)>, ServiceError> {
        self.admitted.check(framing.size.rgb_bytes())?;
        let file = async |source: &ImageSource| match source {
            ImageSource::Inline(bytes) => Ok(bytes.clone()),
            ImageSource::Url(url) => self.file_at(url, limits.max_bytes).await,
        };
        let init = file(init).await?;
        let mask = match mask {
            Some(mask) => Some(file(mask).await.map_err(of_mask_file)?),
            None => None,
        };
        let files = FramedFiles::look_at(init.clone(), mask.clone(), (&framing, limits))?;
        self.check_decoding(files.decoding)?;
        let (framed, room) = self.framed(owner, files, (framing, limits)).await?;
        // That of the caller's own pictures, which are dropped.
        drop(room);
        let checked = |file: Bytes, image: RgbImage| {
            let room = self.admitted.reserve(image.size_bytes());
            Checked::new(file, image, room)
        };
        let of_mask = mask.zip(framed.mask).map(|(file, image)| {
            let mut mask = checked(file, image);
            mask.keeps_everything = framed.keeps_everything;
            (InputRole::Mask, mask)
        });
        let of_init = (InputRole::Init, checked(init, framed.init));
        Ok(std::iter::once(of_init).chain(of_mask).collect())
    }
}
