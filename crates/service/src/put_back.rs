//! What was computed of a job that is framed, put back into the caller's picture.

use pentimento_types::{Job, RgbImage, Start};

use crate::ServiceError;
use crate::decode_room::DecodeRoom;
use crate::framing::{FramedFiles, whole};
use crate::inner::Inner;
use crate::inputs::STORED_LIMITS;
use crate::off_thread::off_thread;

impl Inner {
    /// The picture that is handed out: what was made, where the job has no mask or is not framed. Elsewhere the room is the
    /// picture's, and is to be kept as long as that.
    pub(crate) async fn put_back(
        &self,
        job: &Job,
        made: RgbImage,
    ) -> Result<(RgbImage, Option<DecodeRoom>), ServiceError> {
        let Some(framing) = job.recipe.framing else {
            return Ok((made, None));
        };
        let Start::Image {
            init,
            mask: Some(mask),
        } = job.inputs.start()
        else {
            return Ok((made, None));
        };
        let read = async |key| {
            let file = self.images.get(key).await;
            file.map_err(ServiceError::store("read the input picture"))
        };
        let (init, mask) = (read(init).await?, read(mask).await?);
        let files = FramedFiles::look_at(init, Some(mask), (&framing, STORED_LIMITS))?;
        let room = self.room_for(&job.owner, files.decoding).await?;
        off_thread(move || {
            let picture = whole(files, made, (&framing, STORED_LIMITS))?;
            Ok((picture, Some(room)))
        })
        .await
    }
}
