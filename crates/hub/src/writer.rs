//! Writes what arrives to a file and computes its sha256 on the way, on a thread that may wait for the disk.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::HubError;
use crate::disk_space::{SPARE_BYTES, check_room};

/// Pieces on the way to the disk; the network waits beyond it.
const PIECES: usize = 16;
const BUFFER_BYTES: usize = 1 << 20;

/// The file so far.
#[derive(Debug)]
pub(crate) struct Writer {
    pieces: mpsc::Sender<Order>,
    end: JoinHandle<Result<Written, HubError>>,
}

#[derive(Debug)]
enum Order {
    Write(Bytes),
    /// All of it comes once more.
    BeginAnew,
}

/// A file whose bytes are on the disk.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    /// 64 lower-case hexadecimal digits.
    pub(crate) sha256: String,
}

impl Writer {
    /// Opens the file at `path`; what it already holds is kept up to `keep` bytes. The number is where to go on.
    pub(crate) async fn open(path: &Path, keep: u64) -> Result<(Self, u64), HubError> {
        let place = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            reopened(&place, keep).map_err(HubError::disk("write into its cache", &place))
        });
        let (mut file, mut hasher, start) = opened.await.unwrap_or(Err(HubError::Cancelled))?;
        let (pieces, mut arriving) = mpsc::channel(PIECES);
        let place = path.to_owned();
        let end = tokio::task::spawn_blocking(move || {
            let mut bytes = start;
            // Not every server says how much will come, and others write to the disk, too: what is written between two
            // looks never is more than what is kept free.
            let mut unlooked = SPARE_BYTES;
            let failed = || HubError::disk("write into its cache", &place);
            while let Some(order) = arriving.blocking_recv() {
                let Order::Write(piece) = order else {
                    file.set_len(0).map_err(failed())?;
                    file.rewind().map_err(failed())?;
                    (bytes, hasher) = (0, Sha256::new());
                    continue;
                };
                let length = piece.len() as u64;
                unlooked += length;
                if unlooked >= SPARE_BYTES {
                    check_room(&place, length)?;
                    unlooked = 0;
                }
                file.write_all(&piece).map_err(failed())?;
                hasher.update(&piece);
                bytes += length;
            }
            file.sync_all().map_err(failed())?;
            Ok(Written {
                bytes,
                sha256: hex(hasher),
            })
        });
        Ok((Self { pieces, end }, start))
    }

    /// False when the disk has failed, which `finish` explains.
    pub(crate) async fn write(&self, piece: Bytes) -> bool {
        self.pieces.send(Order::Write(piece)).await.is_ok()
    }

    /// Forgets what is written.
    pub(crate) async fn begin_anew(&self) {
        // When the disk has failed, `finish` explains it.
        let _ = self.pieces.send(Order::BeginAnew).await;
    }

    /// Waits until everything is on the disk.
    pub(crate) async fn finish(self) -> Result<Written, HubError> {
        drop(self.pieces);
        self.end.await.unwrap_or(Err(HubError::Cancelled))
    }
}

fn reopened(path: &Path, keep: u64) -> std::io::Result<(fs_err::File, Sha256, u64)> {
    let mut options = fs_err::OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)?;
    let mut hasher = Sha256::new();
    let start = file.metadata()?.len().min(keep);
    file.set_len(start)?;
    hash_into(&mut hasher, &mut (&mut file).take(start), &mut |_| {})?;
    file.seek(SeekFrom::Start(start))?;
    Ok((file, hasher, start))
}

/// Reads everything, and says after each piece how long it was.
pub(crate) fn hash_into(
    hasher: &mut Sha256,
    file: &mut impl std::io::Read,
    counted: &mut dyn FnMut(u64),
) -> std::io::Result<()> {
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..read]);
        counted(read as u64);
    }
}

pub(crate) fn hex(hasher: Sha256) -> String {
    let digits = hasher.finalize();
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}
