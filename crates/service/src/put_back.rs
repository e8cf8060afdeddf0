//! What was computed of a job that is framed, put back into the caller's picture.

use pentimento_types::{Job, RgbImage, Start};

use crate::ServiceError;
use crate::framing::{FramedFiles, whole};
use crate::inner::Inner;
use crate::inputs::STORED_LIMITS;
use crate::off_thread::off_thread;

impl Inner {
    /// The picture that is handed out: what was made, where the job has no mask or is not framed.
    pub(crate) async fn put_back(&self, job: &Job, made: RgbImage) -> Result<RgbImage, ServiceError> {
        let Some(framing) = job.recipe.framing else {
            return Ok(made);
        };
        let Start::Image {
            init,
            mask: Some(mask),
        } = job.inputs.start()
        else {
            return Ok(made);
        };
        let read = async |key| {
            let file = self.images.get(key).await;
            file.map_err(ServiceError::store("read the input picture"))
        };
        let (init, mask) = (read(init).await?, read(mask).await?);
        let files = FramedFiles::look_at(init, Some(mask), (&framing, STORED_LIMITS))?;
        let room = self.room_for(&job.owner, files.decoding).await?;
        off_thread(move || {
            let picture = whole(files, made, (&framing, STORED_LIMITS));
            drop(room);
            picture
        })
        .await
    }
}
