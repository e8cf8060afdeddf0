//! One file from a server to the disk: gone on with after a break, checked, and then there under its name all at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::HubError;
use crate::client::{Again, Asked, Client, Failed, OpenedFile, Part, broken_off};
use crate::on_disk::on_disk;
use crate::progress::Stage;
use crate::works::Reporter;
use crate::writer::{Writer, Written};

/// Tries in a row without a byte.
const MOST_TRIES: u32 = 6;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A file without a sha256 cannot be told from another of the same length, so what an earlier process has left of it is
/// not gone on with.
const START_ANEW: u64 = 0;

/// What is to become of a file.
#[derive(Debug)]
pub(crate) struct Transfer<'a> {
    pub(crate) client: &'a Client,
    pub(crate) address: &'a Url,
    pub(crate) asked: Asked<'a>,
    /// Its name in messages.
    pub(crate) name: &'a str,
    /// Announced bytes, where somebody has announced them.
    pub(crate) size: Option<u64>,
    /// 64 lower-case hexadecimal digits.
    pub(crate) sha256: Option<&'a str>,
    /// Where the bytes are collected.
    pub(crate) incomplete: PathBuf,
    /// Where they are when all are there.
    pub(crate) place: PathBuf,
    pub(crate) retry_pause: Duration,
    pub(crate) reporter: &'a Reporter,
}

impl Transfer<'_> {
    /// Fetches what is missing. The sha256 of the whole file is the result.
    pub(crate) async fn run(&self) -> Result<String, HubError> {
        let place = self.place.clone();
        on_disk(move || {
            let Some(folder) = place.parent() else {
                return Ok(());
            };
            fs_err::create_dir_all(folder).map_err(HubError::disk("make a folder of its cache", folder))
        })
        .await?;
        let keep = self.sha256.and(self.size).unwrap_or(START_ANEW);
        let (written, went_on) = match self.fetch(keep).await {
            Ok(fetched) => fetched,
            Err(error) => {
                if keep == START_ANEW {
                    // Nothing would go on with it.
                    self.remove().await;
                }
                return Err(error);
            }
        };
        let written = match self.check(&written) {
            Ok(()) => written,
            // What an earlier process has left may be of another file of this name.
            Err(error) if went_on => {
                tracing::warn!(file = self.name, %error, "a transfer that was gone on with is begun anew");
                self.reporter.set_back(written.bytes);
                let (written, _) = self.fetch(START_ANEW).await?;
                if let Err(error) = self.check(&written) {
                    self.remove().await;
                    return Err(error);
                }
                written
            }
            Err(error) => {
                self.remove().await;
                return Err(error);
            }
        };
        let (incomplete, place) = (self.incomplete.clone(), self.place.clone());
        on_disk(move || {
            fs_err::rename(&incomplete, &place).map_err(HubError::disk("write into its cache", &place))?;
            sync_folder(&place);
            Ok(written.sha256)
        })
        .await
    }

    fn check(&self, written: &Written) -> Result<(), HubError> {
        let file = || self.name.to_owned();
        if let Some(expected) = self.size.filter(|size| *size != written.bytes) {
            return Err(HubError::WrongSize {
                file: file(),
                expected,
                found: written.bytes,
            });
        }
        if let Some(expected) = self.sha256.filter(|expected| *expected != written.sha256) {
            return Err(HubError::WrongSha256 {
                file: file(),
                expected: expected.to_owned(),
                found: written.sha256.clone(),
            });
        }
        Ok(())
    }

    async fn remove(&self) {
        let place = self.incomplete.clone();
        let removing =
            move || fs_err::remove_file(&place).map_err(HubError::disk("remove a file of its cache", &place));
        if let Err(error) = on_disk(removing).await {
            tracing::warn!(%error, file = self.name, "a file that is of no use cannot be removed");
        }
    }

    /// Until all bytes are there, however often the connection breaks, as long as each try brings some. True when it went on
    /// with what was there before.
    async fn fetch(&self, keep: u64) -> Result<(Written, bool), HubError> {
        let (writer, found) = Writer::open(&self.incomplete, keep).await?;
        self.reporter.stage(Stage::Downloading);
        self.reporter.found(found);
        let mut all = Arrived {
            bytes: found,
            etag: None,
        };
        let mut tries = 0;
        loop {
            if self.size.is_some_and(|size| all.bytes == size) {
                break;
            }
            let before = all.bytes;
            let failed = match self.attempt(&writer, &mut all).await {
                Ok(()) => break,
                Err(failed) => failed,
            };
            tries = if all.bytes > before { 1 } else { tries + 1 };
            let pause = self.pause(failed.again, tries);
            let Some(pause) = pause.filter(|_| tries < MOST_TRIES) else {
                // What has come so far is kept for the next time.
                writer.finish().await?;
                return Err(failed.error);
            };
            tracing::info!(file = self.name, bytes = all.bytes, error = %failed.error, "a transfer is tried again");
            tokio::time::sleep(pause).await;
        }
        Ok((writer.finish().await?, found > 0))
    }

    fn pause(&self, again: Again, tries: u32) -> Option<Duration> {
        let pause = match again {
            Again::Never => return None,
            Again::Soon => self.retry_pause.saturating_mul(1 << (tries - 1).min(16)),
            Again::After(time) => time,
        };
        Some(pause.min(LONGEST_PAUSE))
    }

    async fn begin_anew(&self, writer: &Writer, all: &mut Arrived) {
        writer.begin_anew().await;
        self.reporter.set_back(all.bytes);
        *all = Arrived { bytes: 0, etag: None };
    }

    async fn attempt(&self, writer: &Writer, all: &mut Arrived) -> Result<(), Failed> {
        if self.sha256.is_none() && all.etag.is_none() && all.bytes > 0 {
            // Nothing could tell whether the rest belongs to it.
            self.begin_anew(writer, all).await;
        }
        let part = Part {
            start: all.bytes,
            if_range: all.etag.as_deref(),
        };
        let opened = self.client.open(self.address, &self.asked, part).await?;
        let OpenedFile {
            mut response,
            start,
            size,
            strong_etag,
        } = opened;
        if start != all.bytes {
            // The server does not send parts, or has another file by now.
            self.begin_anew(writer, all).await;
            if start != 0 {
                return Err(self.wrong_size(start).into());
            }
        }
        all.etag = strong_etag;
        if let Some((size, expected)) = size.zip(self.size).filter(|(size, expected)| size != expected) {
            return Err(HubError::WrongSize {
                file: self.name.to_owned(),
                expected,
                found: size,
            }
            .into());
        }
        let address = response.url().clone();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| broken_off(&address, error))?
        {
            let bytes = piece.len() as u64;
            if self.size.is_some_and(|size| all.bytes + bytes > size) {
                return Err(self.wrong_size(all.bytes + bytes).into());
            }
            if !writer.write(piece).await {
                // `finish` says why.
                return Ok(());
            }
            all.bytes += bytes;
            self.reporter.came(bytes);
        }
        let whole = size.or(self.size);
        if let Some(expected) = whole.filter(|whole| *whole != all.bytes) {
            return Err(Failed {
                error: HubError::WrongSize {
                    file: self.name.to_owned(),
                    expected,
                    found: all.bytes,
                },
                again: Again::Soon,
            });
        }
        Ok(())
    }

    fn wrong_size(&self, found: u64) -> HubError {
        HubError::WrongSize {
            file: self.name.to_owned(),
            expected: self.size.unwrap_or(0),
            found,
        }
    }
}

/// What has come so far.
#[derive(Debug)]
struct Arrived {
    bytes: u64,
    /// What the server called the file when these bytes came.
    etag: Option<String>,
}

/// A new name is on the disk only when its folder is. Not every system can do this, and none needs it to go on.
fn sync_folder(place: &Path) {
    let folder = place.parent().and_then(|folder| fs_err::File::open(folder).ok());
    if let Some(Err(error)) = folder.map(|folder| folder.sync_all()) {
        tracing::debug!(%error, "a folder cannot be brought to the disk");
    }
}
