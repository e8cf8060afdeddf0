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
use crate::decode_room::DecodeRoom;
use crate::image_codec::{ManifestSigner, Origin, ParentManifest, SourceType, with_watermark};
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
#[expect(dead_code, reason = "a turn is held until it is dropped, and never read")]
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
            if let Some((parent, room)) = self.manifest_in(job, &key, signer).await? {
                held.origin.parent = Some(parent);
                held._room = Some(room);
                break;
            }
        }
        Ok(held)
    }

    /// The manifest of a stored file, and the room for what is kept of it. That is taken before the manifest is read, since all
    /// that is read of it stays; who has to wait for it holds nothing meanwhile, the file neither.
    async fn manifest_in(
        &self,
        job: &Job,
        key: &ImageKey,
        signer: &Arc<ManifestSigner>,
    ) -> Result<Option<(ParentManifest, ManifestRoom)>, ServiceError> {
        let mut beyond = None;
        // What it takes is known for certain only when it has been read.
        let mut kept_bytes = None;
        loop {
            let Some((file, room)) = self.file_with_room(job, key).await? else {
                return Ok(None);
            };
            let looker = Arc::clone(signer);
            let look = move || {
                let kept = kept_bytes.or_else(|| looker.about_kept_bytes(&file));
                Ok((kept, file, room))
            };
            let (Some(kept), file, room) = off_thread(look).await? else {
                return Ok(None);
            };
            let keeping = match beyond.take() {
                Some(turn) => ManifestRoom::Beyond(turn),
                None => match self.admitted.reserve(kept) {
                    Some(room) => ManifestRoom::Counted(room),
                    None => {
                        drop((file, room));
                        (kept_bytes, beyond) = (Some(kept), Some(self.manifest_beyond().await?));
                        continue;
                    }
                },
            };
            let signer = Arc::clone(signer);
            let (parent, room) = off_thread(move || Ok((signer.parent(&file), room))).await?;
            let Some(parent) = parent else { return Ok(None) };
            let bytes = parent.size_bytes();
            match keeping {
                ManifestRoom::Counted(counted) if bytes > counted.bytes() => {
                    drop((parent, room, counted));
                    kept_bytes = Some(bytes);
                }
                ManifestRoom::Counted(mut counted) => {
                    counted.shrink_to(bytes);
                    return Ok(Some((parent, ManifestRoom::Counted(counted))));
                }
                turn @ ManifestRoom::Beyond(_) => return Ok(Some((parent, turn))),
            }
        }
    }

    /// A stored file, and the room for it and its manifest. None where it is not there, or cannot be read: the picture is there,
    /// and is not lost for this.
    async fn file_with_room(
        &self,
        job: &Job,
        key: &ImageKey,
    ) -> Result<Option<(Bytes, DecodeRoom)>, ServiceError> {
        let bytes = match self.images.size(key).await {
            Ok(bytes) => bytes,
            Err(StorageError::NotFound { .. }) => return Ok(None),
            Err(error) => {
                not_read(job.id, key, &error);
                return Ok(None);
            }
        };
        let room = self.room_of(&job.owner, bytes.saturating_mul(2)).await?;
        match self.images.get(key).await {
            Ok(file) => Ok(Some((file, room))),
            Err(error) => {
                not_read(job.id, key, &error);
                Ok(None)
            }
        }
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
