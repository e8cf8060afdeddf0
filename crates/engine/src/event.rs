//! What a job tells its caller while it runs. The last event is always one of the three ends.

use pentimento_types::{JobId, Progress, RgbImage};
use tokio::sync::mpsc;

use crate::{EngineError, FinishedImage};

/// One piece of news of a job.
#[derive(Clone, Debug)]
pub enum JobEvent {
    /// The device begins with the job: its model is in memory, and its turn has come. Once, before all others.
    Started,
    /// Evaluations done; never falls, and comes once with `done: 0` when the job has been prepared.
    Progress(Progress),
    /// What an image looks like now, small; only while the job's [`crate::PreviewSwitch`] is set, and at most four in a second.
    Preview {
        /// Which of the job's images, from 0.
        index: u32,
        /// About what it looks like; a pixel for each latent pixel, or fewer.
        image: RgbImage,
    },
    /// One image is finished. Images may finish in any order.
    Image {
        /// Which of the job's images, from 0.
        index: u32,
        /// The image, with what was found in it.
        finished: FinishedImage,
    },
    /// All images have been sent.
    Finished,
    /// The job ended without all of its images.
    Failed(EngineError),
    /// The job was cancelled through the handle.
    Cancelled,
}

impl JobEvent {
    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        match self {
            Self::Started | Self::Progress(_) | Self::Preview { .. } | Self::Image { .. } => false,
            Self::Finished | Self::Failed(_) | Self::Cancelled => true,
        }
    }
}

/// The news of one job, in order. Dropping it before the end cancels the job.
///
/// At most one event per evaluation and image waits here, and a small preview for some, so a slow reader is bounded by its own
/// request.
#[derive(Debug)]
pub struct JobEvents {
    id: JobId,
    receiver: mpsc::UnboundedReceiver<JobEvent>,
    ended: bool,
}

impl JobEvents {
    pub(crate) const fn new(id: JobId, receiver: mpsc::UnboundedReceiver<JobEvent>) -> Self {
        Self {
            id,
            receiver,
            ended: false,
        }
    }

    /// The job these are the news of.
    #[must_use]
    pub const fn id(&self) -> JobId {
        self.id
    }

    /// The next event; None after the end. A dead device thread is an end too: `Failed(Stopped)`.
    ///
    /// Cancel safe: an event is never lost when the future is dropped.
    pub async fn next(&mut self) -> Option<JobEvent> {
        if self.ended {
            return None;
        }
        let event = self.receiver.recv().await;
        Some(self.note(event))
    }

    /// As [`JobEvents::next`] for a thread without async code.
    pub fn blocking_next(&mut self) -> Option<JobEvent> {
        if self.ended {
            return None;
        }
        let event = self.receiver.blocking_recv();
        Some(self.note(event))
    }

    fn note(&mut self, event: Option<JobEvent>) -> JobEvent {
        let event = event.unwrap_or(JobEvent::Failed(EngineError::Stopped));
        self.ended = event.is_end();
        event
    }
}
