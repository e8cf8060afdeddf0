//! Links to finished pictures, and the pictures behind them.

use std::ops::Range;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pentimento_storage::{Access, LinkError, StorageError, content_type};
use pentimento_types::{ImageKey, Job, JobOutcome, MemoryUse, Reservation, StoredImage};

use crate::{Service, ServiceError};

/// How long an address in the bucket is valid at most. It needs no longer: who has the link gets another one.
const PRE_SIGNED: Duration = Duration::from_secs(15 * 60);

/// So small a part of a link's life is not worth giving out where there is a longer one to be had.
const HARDLY_ANY: u32 = 12;

/// A signed address of a picture on this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLink {
    /// `/files/<end>/<signature>/<key>`, to be put behind the server's public address.
    pub path: String,
    /// What is left of the link's life, rounded up to a whole second as its end is.
    pub ttl: Duration,
}

/// What a valid link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedFile {
    /// Bytes of the whole file.
    pub size: u64,
    /// Its media type.
    pub content_type: &'static str,
    /// Its object name.
    pub key: ImageKey,
}

impl Service {
    /// A signed link to a finished picture of `job`. Its life is counted from the end of the job, so every link to a
    /// picture ends at the same time, and the picture is there as long as its links are. Who asks when that life is (nearly)
    /// over gets a new link, as long as the picture is kept.
    #[must_use]
    pub fn link(&self, job: &Job, image: &StoredImage) -> ImageLink {
        let now = self.inner.clock.wall();
        let whole = self.inner.config.link_ttl;
        let ended_at = job.finished_at.unwrap_or(now);
        let mut expires_at = ended_at + whole;
        if expires_at < now + whole / HARDLY_ANY {
            expires_at = (now + whole).min(ended_at + self.inner.config.kept());
        }
        // A clock that was set back must not promise more than a whole life.
        let ttl = expires_at.duration_since(now).unwrap_or_default();
        let rounded_up = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let ttl = Duration::from_secs(rounded_up).min(whole);
        ImageLink {
            path: format!("/{}", self.inner.links.sign(&image.key, expires_at)),
            ttl,
        }
    }

    /// A link to each finished picture of a job, which lives as long as its dialect wanted, with the picture; after that as
    /// [`Self::link`] says.
    #[must_use]
    pub fn links(&self, job: &Job) -> Vec<(StoredImage, ImageLink)> {
        let Some(JobOutcome::Succeeded(images)) = &job.outcome else {
            return Vec::new();
        };
        let now = self.inner.clock.wall();
        let link = |image: &StoredImage| match job.delivery.link_life {
            None => self.link(job, image),
            Some(life) if job.created_at + life <= now => self.link(job, image),
            Some(life) => ImageLink {
                path: self.signed(job, &image.key, life),
                ttl: (job.created_at + life).duration_since(now).unwrap_or_default(),
            },
        };
        images.iter().map(|image| (image.clone(), link(image))).collect()
    }

    /// A signed path to picture number `index` of `job`, or to its bytes as text in base64 where the job's delivery wants
    /// that, known before the picture is there: until then it answers that the picture is not kept. Its life is counted from
    /// the making of the job, so that it is always the same path. `life` is at most `keep_jobs` of the configuration, or the
    /// picture goes first.
    #[must_use]
    pub fn lasting_link(&self, job: &Job, index: u32, life: Duration) -> String {
        self.inner.lasting_path(job, index, life)
    }

    fn signed(&self, job: &Job, key: &ImageKey, life: Duration) -> String {
        format!("/{}", self.inner.links.sign(key, job.created_at + life))
    }

    /// A finished picture as a link to it would be opened, for [`Self::read_linked`].
    ///
    /// # Errors
    /// [`ServiceError::ImageGone`].
    pub async fn linked_picture(&self, image: &StoredImage) -> Result<LinkedFile, ServiceError> {
        Ok(LinkedFile {
            size: self.size(&image.key).await?,
            content_type: content_type(&image.key),
            key: image.key.clone(),
        })
    }

    /// The bytes of a finished picture.
    ///
    /// # Errors
    /// [`ServiceError::ImageGone`].
    pub async fn picture(&self, image: &StoredImage) -> Result<Bytes, ServiceError> {
        self.read_picture(&image.key).await
    }

    /// What a link leads to; nothing of it is read. `path` is what follows `/files/`, as it came; that prefix may also be there.
    ///
    /// # Errors
    /// [`ServiceError::LinkInvalid`], [`ServiceError::LinkExpired`], [`ServiceError::ImageGone`].
    pub async fn open_link(&self, path: &str) -> Result<LinkedFile, ServiceError> {
        let (key, _) = self.verified(path)?;
        if let Some(picture) = key.of_text() {
            return Ok(LinkedFile {
                size: text_size(self.size(&picture).await?),
                content_type: "text/plain; charset=utf-8",
                key,
            });
        }
        Ok(LinkedFile {
            size: self.size(&key).await?,
            content_type: content_type(&key),
            key,
        })
    }

    /// A part of what a link leads to, within its size. The bytes are in the account of memory until they are dropped.
    ///
    /// # Errors
    /// [`ServiceError::RepliesFull`], [`ServiceError::ImageGone`].
    pub async fn read_linked(&self, file: &LinkedFile, range: Range<u64>) -> Result<Bytes, ServiceError> {
        let Some(picture) = file.key.of_text() else {
            let room = self.room_for_reply(range.end.saturating_sub(range.start))?;
            let read = self.inner.images.get_range(&file.key, range).await;
            return Ok(held(read.map_err(not_read)?, room));
        };
        let text = self.text_of(&picture, file.size).await?;
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(text.len());
        Ok(text.slice(place(range.start)..place(range.end)))
    }

    /// A finished picture as text in base64. The bytes are in the account of memory until they are dropped.
    ///
    /// # Errors
    /// [`ServiceError::RepliesFull`], [`ServiceError::ImageGone`].
    pub async fn picture_text(&self, image: &StoredImage) -> Result<Bytes, ServiceError> {
        let size = text_size(self.size(&image.key).await?);
        self.text_of(&image.key, size).await
    }

    /// The text of a picture, which has so many bytes.
    async fn text_of(&self, picture: &ImageKey, size: u64) -> Result<Bytes, ServiceError> {
        // The picture and all of its text.
        let mut room = self.room_for_reply(size.saturating_mul(2))?;
        let text = Bytes::from(STANDARD.encode(self.read_picture(picture).await?));
        room.shrink_to(size);
        Ok(held(text, room))
    }

    fn room_for_reply(&self, bytes: u64) -> Result<Reservation, ServiceError> {
        let reserved = self.inner.memory.reserve(MemoryUse::Replies, bytes);
        reserved.map_err(|_| ServiceError::RepliesFull)
    }

    /// The address of the picture behind a link, where callers are to get it from the bucket itself, valid for some minutes of
    /// the link's life. None where it is to be had from [`Self::open_link`].
    ///
    /// # Errors
    /// As [`Self::open_link`].
    pub async fn link_elsewhere(&self, path: &str, access: Access) -> Result<Option<String>, ServiceError> {
        let (key, left) = self.verified(path)?;
        if key.of_text().is_some() {
            return Ok(None);
        }
        let images = &self.inner.images;
        let address = images.elsewhere(&key, access, left.min(PRE_SIGNED)).await;
        let address = address.map_err(ServiceError::store("read the picture"))?;
        // A bucket would tell it in words of its own, and of a picture that is still to come.
        if address.is_some()
            && !images
                .has(&key)
                .await
                .map_err(ServiceError::store("read the picture"))?
        {
            return Err(ServiceError::ImageGone);
        }
        Ok(address)
    }

    fn verified(&self, path: &str) -> Result<(ImageKey, Duration), ServiceError> {
        let now = self.inner.clock.wall();
        self.inner.links.open_at(path, now).map_err(|error| match error {
            LinkError::Invalid => ServiceError::LinkInvalid,
            LinkError::Expired => ServiceError::LinkExpired,
        })
    }

    async fn size(&self, key: &ImageKey) -> Result<u64, ServiceError> {
        self.inner.images.size(key).await.map_err(not_read)
    }

    async fn read_picture(&self, key: &ImageKey) -> Result<Bytes, ServiceError> {
        self.inner.images.get(key).await.map_err(not_read)
    }
}

fn not_read(error: StorageError) -> ServiceError {
    if let StorageError::NotFound { .. } = error {
        ServiceError::ImageGone
    } else {
        ServiceError::store("read the picture")(error)
    }
}

/// Of a picture of so many bytes, as base64 with its padding.
const fn text_size(bytes: u64) -> u64 {
    bytes.div_ceil(3).saturating_mul(4)
}

/// Bytes, and their room in the account of memory for as long as somebody has them.
fn held(bytes: Bytes, room: Reservation) -> Bytes {
    struct Held {
        bytes: Bytes,
        _room: Reservation,
    }
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Held { bytes, _room: room })
}
