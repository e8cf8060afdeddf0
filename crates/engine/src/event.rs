//! What a job tells its caller while it runs. The last event is always one of the three ends.

use pentimento_pipeline::Precision;
use pentimento_types::{Findings, JobId, Progress, RgbImage};
use tokio::sync::mpsc;

use crate::admission::Place;
use crate::{EngineError, FinishedImage};

/// One piece of news of a job.
#[derive(Clone, Debug)]
pub enum JobEvent {
    /// The device begins with the job, or would if there were something to do for it: its model is in memory, and its turn has come. Once, before all others.
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
    /// Of a job that the device thread never sees; that of another is with it.
    _place: Option<Place>,
}

impl JobEvents {
    pub(crate) const fn new(id: JobId, receiver: mpsc::UnboundedReceiver<JobEvent>) -> Self {
        Self {
            id,
            receiver,
            ended: false,
            _place: None,
        }
    }

    /// Those of a job whose images are all the one to start from; they are there at once.
    pub(crate) fn of_input(id: JobId, (image, count): (&RgbImage, u32), place: Place) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let images = (0..count).map(|index| JobEvent::Image {
            index,
            finished: FinishedImage {
                image: image.clone(),
                findings: Findings::default(),
                precision: Precision::F32,
            },
        });
        let started = [JobEvent::Started, JobEvent::Progress(Progress::default())];
        for event in started.into_iter().chain(images).chain([JobEvent::Finished]) {
            // The receiver is here.
            let _ = sender.send(event);
        }
        Self {
            _place: Some(place),
            ..Self::new(id, receiver)
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
