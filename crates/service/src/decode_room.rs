//! Room for decoding a file, at the door and again in an attempt whose images were given up: all of it is in one account,
//! and only so many files are decoded at once.

use std::sync::Arc;

use pentimento_types::{ApiKeyId, Reservation};
use tokio::sync::OwnedSemaphorePermit;

use crate::ServiceError;
use crate::admitted::AdmittedJobs;
use crate::image_codec::Decoding;
use crate::inner::Inner;

/// Room for decoding one file. It goes along to the thread that decodes, which runs on when the caller hangs up.
#[derive(Debug)]
pub(crate) struct DecodeRoom {
    bytes: Bytes,
    /// Bounds what decoding takes, whatever the number of connections.
    _turn: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Bytes {
    /// In the account of images.
    Counted(Reservation),
    /// Beyond it, one file at a time.
    Beyond { _turn: OwnedSemaphorePermit },
}

impl DecodeRoom {
    /// Ends the decoding, after which its image of so many bytes stays: it is mostly smaller than what it took to make it.
    /// None where there is no room for it.
    pub(crate) fn keep(self, admitted: &AdmittedJobs, image_bytes: u64) -> Option<Reservation> {
        match self.bytes {
            Bytes::Counted(mut room) if image_bytes <= room.bytes() => {
                room.shrink_to(image_bytes);
                Some(room)
            }
            other @ (Bytes::Counted(_) | Bytes::Beyond { .. }) => {
                drop(other);
                admitted.reserve(image_bytes)
            }
        }
    }
}

impl Inner {
    /// Refuses a file that takes more than there is.
    pub(crate) fn check_decoding(&self, decoding: Decoding) -> Result<(), ServiceError> {
        let (needed, limit) = (decoding.working_bytes, self.admitted.limit());
        if needed > limit {
            let size = decoding.size;
            return Err(ServiceError::ImageWork { size, needed, limit });
        }
        Ok(())
    }

    /// Waits for room for a file, for which images of jobs that wait are given up. Where jobs in the engine hold it all, one
    /// file at a time is decoded beyond it: who is to wait must be read first, and who has a place in the engine must get
    /// there, or nobody would give anything back.
    pub(crate) async fn room_for(
        &self,
        owner: &ApiKeyId,
        decoding: Decoding,
    ) -> Result<DecodeRoom, ServiceError> {
        self.room_of(owner, decoding.working_bytes).await
    }

    /// The same by the number of bytes.
    pub(crate) async fn room_of(&self, owner: &ApiKeyId, bytes: u64) -> Result<DecodeRoom, ServiceError> {
        // First among one's own files, so that one caller's many stand behind each other and not before everybody.
        let share = self.decoding_shares.of(owner);
        let own = share.acquire_owned().await.map_err(ServiceError::internal)?;
        let turn = Arc::clone(&self.decoding).acquire_owned().await;
        let turn = turn.map_err(ServiceError::internal)?;
        let bytes = loop {
            match self.admitted.room(bytes) {
                Ok(room) => break Bytes::Counted(room),
                Err(full) if !full.is_hopeless() && self.admitted.give_up_one() => {}
                Err(_) => {
                    let beyond = Arc::clone(&self.decoding_beyond).acquire_owned().await;
                    let _turn = beyond.map_err(ServiceError::internal)?;
                    break Bytes::Beyond { _turn };
                }
            }
        };
        Ok(DecodeRoom {
            bytes,
            _turn: turn,
            _own: own,
        })
    }
}
