//! What the batcher knows of one job: where each of its images is, never what they look like.

use std::time::{Duration, Instant};

use pentimento_types::{ApiKeyId, JobId, Priority};

use crate::{BatchKey, LatentSize, ModelKey};

/// One image of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId {
    /// The job.
    pub job: JobId,
    /// Which of its images, from 0.
    pub index: u32,
}

/// What is known of a job at its admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// The job.
    pub id: JobId,
    /// Whose share of the device's time it uses.
    pub owner: ApiKeyId,
    /// The weights it needs.
    pub model: ModelKey,
    /// Size of its latents.
    pub latent: LatentSize,
    /// About how much of the device's time it will take, in the units of [`pentimento_types::Recipe::work`]; 0 where nobody
    /// knows.
    pub work: u64,
    /// Before or behind other jobs of its owner.
    pub priority: Priority,
    /// When it is no longer wanted.
    pub deadline: Option<Instant>,
}

impl JobSpec {
    /// A job of nobody in particular, of unknown work.
    #[must_use]
    pub fn new(id: JobId, model: ModelKey, latent: LatentSize) -> Self {
        Self {
            id,
            owner: ApiKeyId::anonymous(),
            model,
            latent,
            work: 0,
            priority: Priority::Normal,
            deadline: None,
        }
    }
}

/// What is known of an image once it is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageWork {
    /// Evaluations until it can be finished; may be 0.
    pub evaluations: u32,
    /// Rows it brings to a forward, 1 or 2.
    pub rows: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Ready,
    Denoising,
    ToFinish,
    Finishing,
    Done,
}

#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) phase: Phase,
    pub(super) evaluations_left: u32,
    pub(super) rows: u32,
}

impl Image {
    const fn new(work: ImageWork) -> Self {
        let phase = if work.evaluations == 0 {
            Phase::ToFinish
        } else {
            Phase::Ready
        };
        Self {
            phase,
            evaluations_left: work.evaluations,
            rows: work.rows,
        }
    }
}

/// With whom a job may share a forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Shared,
    /// Its last forward failed in company: the next one runs without others, to find out whose fault it was.
    SoloOnce,
    /// A forward panicked with it in company: it never runs with others again, so it is started anew once at most.
    Solo,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// In the line. Whether its model is ready, or being loaded for it, is for `Models` to say.
    Waiting,
    /// Some slices of its preparation may be done.
    Preparing {
        /// Whether the next one belongs to a pass of the VAE.
        in_pass: bool,
    },
    Running {
        key: BatchKey,
        images: Vec<Image>,
    },
}

/// A job's place in the order of turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Its start in the virtual time of its like.
    pub(super) start: Duration,
    /// When it acted last, or came.
    pub(super) since: Instant,
}

impl Turn {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            start: Duration::ZERO,
            since: now,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct JobEntry {
    pub(super) spec: JobSpec,
    /// Place in the order of admission.
    pub(super) order: u64,
    pub(super) admitted_at: Instant,
    pub(super) turn: Turn,
    pub(super) stage: Stage,
    pub(super) sharing: Sharing,
    /// Images that were finished before the job was started anew; they are not made twice.
    kept: Vec<u32>,
}

impl JobEntry {
    pub(super) const fn new(spec: JobSpec, order: u64, now: Instant) -> Self {
        Self {
            spec,
            order,
            admitted_at: now,
            turn: Turn::new(now),
            stage: Stage::Waiting,
            sharing: Sharing::Shared,
            kept: Vec::new(),
        }
    }

    pub(super) fn images(&self) -> &[Image] {
        match &self.stage {
            Stage::Waiting | Stage::Preparing { .. } => &[],
            Stage::Running { key: _, images } => images,
        }
    }

    pub(super) fn image_mut(&mut self, index: u32) -> Option<&mut Image> {
        match &mut self.stage {
            Stage::Waiting | Stage::Preparing { .. } => None,
            Stage::Running { key: _, images } => images.get_mut(index as usize),
        }
    }

    pub(super) const fn key(&self) -> Option<&BatchKey> {
        match &self.stage {
            Stage::Waiting | Stage::Preparing { .. } => None,
            Stage::Running { key, images: _ } => Some(key),
        }
    }

    /// Whether something that it holds was made with its model.
    pub(super) const fn holds_model(&self) -> bool {
        matches!(self.stage, Stage::Preparing { .. } | Stage::Running { .. })
    }

    pub(super) fn in_phase(&self, phase: Phase) -> impl Iterator<Item = (ImageId, &Image)> {
        let job = self.spec.id;
        let numbered = (0..).zip(self.images());
        numbered
            .filter(move |(_, image)| image.phase == phase)
            .map(move |(index, image)| (ImageId { job, index }, image))
    }

    pub(super) fn has(&self, phase: Phase) -> bool {
        self.in_phase(phase).next().is_some()
    }

    pub(super) fn is_done(&self) -> bool {
        match &self.stage {
            Stage::Waiting | Stage::Preparing { .. } => false,
            Stage::Running { key: _, images } => images.iter().all(|image| image.phase == Phase::Done),
        }
    }

    /// Rows that still have evaluations before them.
    pub(super) fn rows_to_denoise(&self) -> u32 {
        let open = self.images().iter().filter(|image| image.evaluations_left > 0);
        open.map(|image| image.rows).sum()
    }

    pub(super) fn start_running(&mut self, key: BatchKey, work: &[ImageWork]) {
        let mut images: Vec<Image> = work.iter().copied().map(Image::new).collect();
        for index in &self.kept {
            if let Some(image) = images.get_mut(*index as usize) {
                *image = Image {
                    phase: Phase::Done,
                    evaluations_left: 0,
                    rows: image.rows,
                };
            }
        }
        self.stage = Stage::Running { key, images };
    }

    /// Forgets all states; what is finished stays finished.
    pub(super) fn start_anew(&mut self) {
        self.kept = self.in_phase(Phase::Done).map(|(id, _)| id.index).collect();
        self.stage = Stage::Waiting;
        self.sharing = Sharing::Solo;
    }
}
