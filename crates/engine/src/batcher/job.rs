//! What the batcher knows of one job: where each of its pictures is, never what they look like.

use std::time::Instant;

use pentimento_types::JobId;

use crate::{BatchKey, LatentSize, ModelKey};

/// One picture of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PictureId {
    /// The job.
    pub job: JobId,
    /// Which of its pictures, from 0.
    pub index: u32,
}

/// What is known of a job at its admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// The job.
    pub id: JobId,
    /// The weights it needs.
    pub model: ModelKey,
    /// Size of its latents.
    pub latent: LatentSize,
    /// When it is no longer wanted.
    pub deadline: Option<Instant>,
}

/// What is known of a picture once it is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureWork {
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
pub(super) struct Picture {
    pub(super) phase: Phase,
    pub(super) evaluations_left: u32,
    pub(super) rows: u32,
}

impl Picture {
    const fn new(work: PictureWork) -> Self {
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
pub(super) enum Company {
    Welcome,
    /// Its last forward failed in company: the next one runs without others, to find out whose fault it was.
    AloneOnce,
    /// A forward panicked with it in company: it never runs with others again, so it is started anew once at most.
    Alone,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    Waiting,
    Preparing,
    Running { key: BatchKey, pictures: Vec<Picture> },
}

#[derive(Clone, Debug)]
pub(super) struct JobEntry {
    pub(super) spec: JobSpec,
    /// Place in the order of admission.
    pub(super) order: u64,
    pub(super) admitted_at: Instant,
    pub(super) stage: Stage,
    pub(super) company: Company,
    /// Pictures that were finished before the job was started anew; they are not made twice.
    kept: Vec<u32>,
}

impl JobEntry {
    pub(super) const fn new(spec: JobSpec, order: u64, now: Instant) -> Self {
        Self {
            spec,
            order,
            admitted_at: now,
            stage: Stage::Waiting,
            company: Company::Welcome,
            kept: Vec::new(),
        }
    }

    pub(super) fn pictures(&self) -> &[Picture] {
        match &self.stage {
            Stage::Waiting | Stage::Preparing => &[],
            Stage::Running { key: _, pictures } => pictures,
        }
    }

    pub(super) fn picture_mut(&mut self, index: u32) -> Option<&mut Picture> {
        match &mut self.stage {
            Stage::Waiting | Stage::Preparing => None,
            Stage::Running { key: _, pictures } => pictures.get_mut(index as usize),
        }
    }

    pub(super) const fn key(&self) -> Option<&BatchKey> {
        match &self.stage {
            Stage::Waiting | Stage::Preparing => None,
            Stage::Running { key, pictures: _ } => Some(key),
        }
    }

    /// Whether its model is needed now.
    pub(super) const fn holds_model(&self) -> bool {
        !matches!(self.stage, Stage::Waiting)
    }

    pub(super) fn in_phase(&self, phase: Phase) -> impl Iterator<Item = (PictureId, &Picture)> {
        let job = self.spec.id;
        let numbered = (0..).zip(self.pictures());
        numbered
            .filter(move |(_, picture)| picture.phase == phase)
            .map(move |(index, picture)| (PictureId { job, index }, picture))
    }

    pub(super) fn has(&self, phase: Phase) -> bool {
        self.in_phase(phase).next().is_some()
    }

    pub(super) fn is_done(&self) -> bool {
        match &self.stage {
            Stage::Waiting | Stage::Preparing => false,
            Stage::Running { key: _, pictures } => {
                pictures.iter().all(|picture| picture.phase == Phase::Done)
            }
        }
    }

    /// Rows that still have evaluations before them.
    pub(super) fn rows_to_denoise(&self) -> u32 {
        let open = self
            .pictures()
            .iter()
            .filter(|picture| picture.evaluations_left > 0);
        open.map(|picture| picture.rows).sum()
    }

    pub(super) fn start_running(&mut self, key: BatchKey, work: &[PictureWork]) {
        let mut pictures: Vec<Picture> = work.iter().copied().map(Picture::new).collect();
        for index in &self.kept {
            if let Some(picture) = pictures.get_mut(*index as usize) {
                *picture = Picture {
                    phase: Phase::Done,
                    evaluations_left: 0,
                    rows: picture.rows,
                };
            }
        }
        self.stage = Stage::Running { key, pictures };
    }

    /// Forgets all states; what is finished stays finished.
    pub(super) fn start_anew(&mut self) {
        self.kept = self.in_phase(Phase::Done).map(|(id, _)| id.index).collect();
        self.stage = Stage::Waiting;
        self.company = Company::Alone;
    }
}
