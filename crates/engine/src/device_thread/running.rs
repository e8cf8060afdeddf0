//! What the device thread keeps of one job: its input, its states and the way to its caller.

use std::time::{Duration, Instant};

use pentimento_types::{JobId, Progress, RgbImage};
use tokio::sync::mpsc;

use crate::admission::Place;
use crate::batcher::{ImageWork, Outcome};
use crate::executor::PreparedImage;
use crate::{Executor, FinishedImage, JobEvent, Prepared, PreviewSwitch, ResolvedJob};

/// The least time between two previews of a job.
const BETWEEN_PREVIEWS: Duration = Duration::from_millis(250);

struct Slot<S> {
    /// What it brings to a forward.
    rows: u32,
    /// None before preparation, during a forward, and once finished.
    state: Option<S>,
    evaluations: u32,
    done: u32,
    delivered: bool,
    /// How many previews of it there were.
    previews: u32,
}

/// One job on a device of this kind.
pub(super) type RunningOn<E> =
    Running<<E as Executor>::Preparation, <E as Executor>::State, <E as Executor>::Finishing>;

pub(super) struct Running<P, S, F> {
    pub(super) input: ResolvedJob,
    /// Between two slices.
    pub(super) preparation: Option<P>,
    /// The image that is between two slices of its decoding; one at a time.
    pub(super) finishing: Option<F>,
    events: mpsc::UnboundedSender<JobEvent>,
    /// Given back when the job ends.
    place: Place,
    slots: Vec<Slot<S>>,
    last_progress: Option<Progress>,
    started: bool,
    /// What the VAE has taken of the device so far.
    pub(super) vae: VaeTime,
    previews: PreviewSwitch,
    last_preview: Option<Instant>,
}

/// The time of a pass of the VAE, slice by slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct VaeTime {
    /// Whether the next slice of the preparation belongs to one.
    pub(super) encodes: bool,
    pub(super) encoding: Duration,
    pub(super) decoding: Duration,
}

impl VaeTime {
    const NONE: Self = Self {
        encodes: false,
        encoding: Duration::ZERO,
        decoding: Duration::ZERO,
    };
}

impl<P, S, F> Running<P, S, F> {
    pub(super) const fn new(
        input: ResolvedJob,
        events: mpsc::UnboundedSender<JobEvent>,
        place: Place,
        previews: PreviewSwitch,
    ) -> Self {
        Self {
            input,
            preparation: None,
            finishing: None,
            events,
            place,
            slots: Vec::new(),
            last_progress: None,
            started: false,
            vae: VaeTime::NONE,
            previews,
            last_preview: None,
        }
    }

    /// Tells the caller that the device has begun, the first time.
    pub(super) fn note_start(&mut self) {
        if !self.started {
            self.started = true;
            self.send(JobEvent::Started);
        }
    }

    pub(super) fn caller_is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// Takes the states in, and says what work they are. Those of images that were delivered before the job was started
    /// anew are dropped.
    pub(super) fn fill(&mut self, job: JobId, prepared: Prepared<S>) -> Outcome {
        let Prepared { key, images } = prepared;
        let work = |image: &PreparedImage<S>| ImageWork {
            evaluations: image.evaluations,
            rows: image.rows,
        };
        let work = images.iter().map(work).collect();
        let delivered: Vec<bool> = self.slots.iter().map(|slot| slot.delivered).collect();
        let slots = images.into_iter().enumerate().map(|(index, image)| {
            let delivered = delivered.get(index).copied().unwrap_or(false);
            let PreparedImage {
                state,
                evaluations,
                rows,
            } = image;
            Slot {
                rows,
                state: (!delivered).then_some(state),
                evaluations,
                done: if delivered { evaluations } else { 0 },
                delivered,
                previews: 0,
            }
        });
        self.slots = slots.collect();
        self.send_progress();
        Outcome::Prepared {
            job,
            key,
            images: work,
        }
    }

    /// Drops all states, to be prepared anew.
    pub(super) fn clear(&mut self) {
        self.preparation = None;
        self.finishing = None;
        self.vae = VaeTime::NONE;
        for slot in &mut self.slots {
            slot.state = None;
        }
    }

    /// What an image brings to a forward.
    pub(super) fn rows(&self, index: u32) -> u32 {
        self.slots.get(index as usize).map_or(0, |slot| slot.rows)
    }

    /// Of an image that is between two evaluations.
    pub(super) fn state(&self, index: u32) -> Option<&S> {
        self.slots.get(index as usize)?.state.as_ref()
    }

    pub(super) fn take(&mut self, index: u32) -> Option<S> {
        self.slots.get_mut(index as usize)?.state.take()
    }

    pub(super) fn put_back(&mut self, index: u32, state: S) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.state = Some(state);
        }
    }

    pub(super) fn note_evaluation(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.done += 1;
        }
    }

    /// Tells the caller how far the job is, when that is news; a job that was started anew is silent until it has caught
    /// up.
    pub(super) fn send_progress(&mut self) {
        let done = self.slots.iter().map(|slot| slot.done).sum();
        let total = self.slots.iter().map(|slot| slot.evaluations).sum();
        if self.last_progress.is_none_or(|last| last.done < done) {
            let progress = Progress { done, total };
            self.last_progress = Some(progress);
            if let Some(on_device) = &self.place.on_device {
                on_device.progressed(progress);
            }
            self.send(JobEvent::Progress(progress));
        }
    }

    /// Whether the caller wants to see something now. Asked after every evaluation.
    pub(super) fn wants_preview(&self, now: Instant) -> bool {
        let is_due = |last| now.saturating_duration_since(last) >= BETWEEN_PREVIEWS;
        self.previews.is_set() && self.last_preview.is_none_or(is_due)
    }

    /// The image among these that was shown least often, with its state.
    pub(super) fn next_to_show(&self, indices: impl Iterator<Item = u32>) -> Option<(u32, &S)> {
        let slots = indices.filter_map(|index| {
            let slot = self.slots.get(index as usize)?;
            Some((slot.previews, index, slot.state.as_ref()?))
        });
        let next = slots.min_by_key(|(previews, index, _)| (*previews, *index));
        next.map(|(_, index, state)| (index, state))
    }

    pub(super) fn show(&mut self, index: u32, image: Option<RgbImage>, now: Instant) {
        // An image that cannot be shown has had its turn, too.
        self.last_preview = Some(now);
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.previews += 1;
        }
        if let Some(image) = image {
            self.send(JobEvent::Preview { index, image });
        }
    }

    pub(super) fn deliver(&mut self, index: u32, finished: FinishedImage) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.delivered = true;
        }
        self.send(JobEvent::Image { index, finished });
    }

    pub(super) fn end(self, event: JobEvent) {
        let Self {
            input,
            preparation,
            finishing,
            events,
            place,
            slots,
            last_progress: _,
            started: _,
            vae: _,
            previews: _,
            last_preview: _,
        } = self;
        drop((preparation, finishing, slots, input, place));
        // A caller that has gone needs no answer.
        let _ = events.send(event);
    }

    fn send(&self, event: JobEvent) {
        // A caller that has gone is noticed before the next plan.
        let _ = self.events.send(event);
    }
}
