//! What the operator has put on finished pictures beside the marks of their files: the watermark in their pixels, and a signature
//! with the manifest of the picture that they were made from.

use std::sync::Arc;

use bytes::Bytes;
use pentimento_storage::StorageError;
use pentimento_types::{
    HasKind as _, ImageFormat, ImageKey, InputRole, Job, JobId, Recipe, Reservation, RgbImage, describe_chain,
};
use tokio::sync::{OnceCell, OwnedSemaphorePermit};

use crate::ServiceError;
use crate::image_codec::{ManifestSigner, Origin, SourceType, with_watermark};
use crate::inner::Inner;
use crate::off_thread::off_thread;

/// What the pictures of an attempt are made from, looked for when the first of them is finished.
#[derive(Debug, Default)]
pub(crate) struct OriginOnce(OnceCell<HeldOrigin>);

impl OriginOnce {
    /// None where nothing is signed.
    pub(crate) fn found(&self) -> Option<&Origin> {
        self.0.get().map(|held| &held.origin)
    }
}

/// What pictures are made from, with the room that it takes.
#[derive(Debug)]
struct HeldOrigin {
    origin: Origin,
    _room: Option<ManifestRoom>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "they are held until they are dropped, and never read")]
enum ManifestRoom {
    /// In the account of images.
    Counted(Reservation),
    /// Beyond it, for one job at a time.
    Beyond(OwnedSemaphorePermit),
}

fn not_read(job: JobId, key: &ImageKey, error: &StorageError) {
    let (kind, error) = (error.kind().as_str(), describe_chain(error));
    tracing::warn!(%job, %key, kind, error, "an input's manifest cannot be read");
}

impl Inner {
    /// With the watermark, where it is asked for and a network has made something of the picture.
    pub(crate) fn watermarked(&self, image: RgbImage, recipe: &Recipe) -> RgbImage {
        if self.config.watermark && !recipe.gives_input_back() {
            with_watermark(image)
        } else {
            image
        }
    }

    /// Looks for what the pictures of a job are made from, where they are signed. Its file is read within the room that all
    /// share, and what is kept of it counts as long as it is kept.
    pub(crate) async fn origin_of(&self, job: &Job, origin: &OriginOnce) -> Result<(), ServiceError> {
        // Where the input is given back, nothing was made that could be vouched for.
        if let Some(signer) = self.signer.as_ref().filter(|_| !job.recipe.gives_input_back()) {
            let look = || self.look_for_origin(job, signer);
            origin.0.get_or_try_init(look).await?;
        }
        Ok(())
    }

    async fn look_for_origin(
        &self,
        job: &Job,
        signer: &Arc<ManifestSigner>,
    ) -> Result<HeldOrigin, ServiceError> {
        let mut held = HeldOrigin {
            origin: Origin {
                source_type: SourceType::of(job.inputs.task()),
                parent: None,
            },
            _room: None,
        };
        for key in [ImageKey::sent(job.id), ImageKey::input(job.id, InputRole::Init)] {
            match self.images.size(&key).await {
                Ok(bytes) => {
                    // The file and its manifest.
                    let room = self.room_of(&job.owner, bytes.saturating_mul(2)).await?;
                    let file = match self.images.get(&key).await {
                        Ok(file) => file,
                        Err(error) => {
                            not_read(job.id, &key, &error);
                            continue;
                        }
                    };
                    let signer = Arc::clone(signer);
                    let parent = off_thread(move || Ok((signer.parent(&file), room))).await?;
                    let (Some(parent), room) = parent else { continue };
                    held._room = Some(match room.keep(&self.admitted, parent.size_bytes()) {
                        Some(room) => ManifestRoom::Counted(room),
                        None => ManifestRoom::Beyond(self.manifest_beyond().await?),
                    });
                    held.origin.parent = Some(parent);
                    break;
                }
                Err(StorageError::NotFound { .. }) => {}
                // The picture is there, and is not lost for this.
                Err(error) => not_read(job.id, &key, &error),
            }
        }
        Ok(held)
    }

    async fn manifest_beyond(&self) -> Result<OwnedSemaphorePermit, ServiceError> {
        let turn = Arc::clone(&self.manifests_beyond).acquire_owned().await;
        turn.map_err(ServiceError::internal)
    }

    /// The file with a signature, or as it is where nothing is signed.
    pub(crate) fn signed(
        &self,
        file: Bytes,
        format: ImageFormat,
        origin: Option<&Origin>,
    ) -> Result<Bytes, ServiceError> {
        match (&self.signer, origin) {
            (Some(signer), Some(origin)) => signer.sign(&file, format, origin),
            _ => Ok(file),
        }
    }
}
