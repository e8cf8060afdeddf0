//! What the device thread keeps of one job: its input, its states and the way to its caller.

use pentimento_types::Progress;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::executor::PreparedPicture;
use crate::{FinishedImage, JobEvent, ResolvedJob};

struct Slot<S> {
    /// None before preparation, during a forward, and once finished.
    state: Option<S>,
    evaluations: u32,
    done: u32,
    delivered: bool,
}

pub(super) struct Running<S> {
    pub(super) input: ResolvedJob,
    events: mpsc::UnboundedSender<JobEvent>,
    /// The job's place at the door; given back when it ends.
    permit: OwnedSemaphorePermit,
    slots: Vec<Slot<S>>,
    last_progress: Option<Progress>,
}

impl<S> Running<S> {
    pub(super) const fn new(
        input: ResolvedJob,
        events: mpsc::UnboundedSender<JobEvent>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            input,
            events,
            permit,
            slots: Vec::new(),
            last_progress: None,
        }
    }

    pub(super) fn caller_is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// Takes the states in. Those of pictures that were delivered before the job was started anew are dropped.
    pub(super) fn fill(&mut self, pictures: Vec<PreparedPicture<S>>) {
        let delivered: Vec<bool> = self.slots.iter().map(|slot| slot.delivered).collect();
        let slots = pictures.into_iter().enumerate().map(|(index, picture)| {
            let delivered = delivered.get(index).copied().unwrap_or(false);
            let PreparedPicture {
                state,
                evaluations,
                rows: _,
            } = picture;
            Slot {
                state: (!delivered).then_some(state),
                evaluations,
                done: if delivered { evaluations } else { 0 },
                delivered,
            }
        });
        self.slots = slots.collect();
        self.send_progress();
    }

    /// Drops all states, to be prepared anew.
    pub(super) fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.state = None;
        }
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
            self.send(JobEvent::Progress(progress));
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
            events,
            permit,
            slots,
            last_progress: _,
        } = self;
        drop((slots, input, permit));
        // A caller that has gone needs no answer.
        let _ = events.send(event);
    }

    fn send(&self, event: JobEvent) {
        // A caller that has gone is noticed before the next plan.
        let _ = self.events.send(event);
    }
}
