//! What the operator has put on finished pictures beside the marks of their files: the watermark in their pixels, and a signature
//! with the manifest of the picture that they were made from.

use bytes::Bytes;
use pentimento_storage::StorageError;
use pentimento_types::{
    HasKind as _, ImageFormat, ImageKey, InputRole, Job, Recipe, RgbImage, describe_chain,
};

use crate::ServiceError;
use crate::image_codec::{Origin, SourceType, with_watermark};
use crate::inner::Inner;

impl Inner {
    /// With the watermark, where it is asked for and a network has made something of the picture.
    pub(crate) fn watermarked(&self, image: RgbImage, recipe: &Recipe) -> RgbImage {
        if self.config.watermark && !recipe.gives_input_back() {
            with_watermark(image)
        } else {
            image
        }
    }

    /// What the pictures of a job are made from; None where nothing is signed.
    pub(crate) async fn origin_of(&self, job: &Job) -> Option<Origin> {
        let signer = self.signer.as_ref()?;
        let mut parent = None;
        for key in [ImageKey::sent(job.id), ImageKey::input(job.id, InputRole::Init)] {
            match self.images.get(&key).await {
                Ok(file) if signer.keeps(&file) => {
                    parent = Some(file);
                    break;
                }
                Ok(_) | Err(StorageError::NotFound { .. }) => {}
                // The picture is there, and is not lost for this.
                Err(error) => {
                    let (kind, error) = (error.kind().as_str(), describe_chain(&error));
                    tracing::warn!(job = %job.id, %key, kind, error, "an input's manifest cannot be read");
                }
            }
        }
        Some(Origin {
            source_type: SourceType::of(job.inputs.task()),
            parent,
        })
    }

    /// The file with a signature, or as it is where nothing is signed.
    pub(crate) fn signed(
        &self,
        file: Bytes,
        format: ImageFormat,
        origin: Option<Origin>,
    ) -> Result<Bytes, ServiceError> {
        match (&self.signer, origin) {
            (Some(signer), Some(origin)) => signer.sign(&file, format, &origin),
            _ => Ok(file),
        }
    }
}
