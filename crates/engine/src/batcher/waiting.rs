//! Who may be prepared next: for every owner, model and size the job that came first. And whose model is loaded for that,
//! round robin.
//!
//! Two limits hold a job back. Images prepared ahead of the denoising: the age bound overrides that. A place for its
//! model: it cannot be overridden, so once a job is overdue, models that have been ready for the age bound get no job
//! that was admitted after it, and fall free. A model so stays for a stretch, however many jobs wait, and none thrashes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use pentimento_types::{ApiKeyId, JobId};

use super::job::{JobEntry, Stage};
use super::models::Models;
use crate::{BatchPolicy, LatentSize, ModelKey};

/// Half-prepared jobs of one owner at once, each of which holds memory and makes no image yet.
const MOST_HALF_PREPARED: usize = 4;

#[derive(Debug)]
struct Flow {
    owner: ApiKeyId,
    model: ModelKey,
    latent: LatentSize,
    jobs: VecDeque<JobId>,
}

/// Jobs that are admitted and not yet prepared.
#[derive(Debug, Default)]
pub(super) struct WaitingLine {
    flows: VecDeque<Flow>,
}

/// What a choice among the waiting jobs looks at.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) jobs: &'a BTreeMap<JobId, JobEntry>,
    pub(super) models: &'a Models,
    pub(super) policy: &'a BatchPolicy,
    pub(super) now: Instant,
}

impl WaitingLine {
    pub(super) fn push(&mut self, entry: &JobEntry) {
        self.flow(entry).jobs.push_back(entry.spec.id);
    }

    /// A job that was started before goes ahead of its like.
    pub(super) fn push_first(&mut self, entry: &JobEntry) {
        self.flow(entry).jobs.push_front(entry.spec.id);
    }

    fn flow(&mut self, entry: &JobEntry) -> &mut Flow {
        let spec = &entry.spec;
        let same =
            |flow: &Flow| flow.owner == spec.owner && flow.model == spec.model && flow.latent == spec.latent;
        let at = self.flows.iter().position(same).unwrap_or_else(|| {
            self.flows.push_back(Flow {
                owner: spec.owner.clone(),
                model: spec.model.clone(),
                latent: spec.latent,
                jobs: VecDeque::new(),
            });
            self.flows.len() - 1
        });
        &mut self.flows[at]
    }

    pub(super) fn remove(&mut self, id: JobId) {
        for flow in &mut self.flows {
            flow.jobs.retain(|job| *job != id);
        }
        self.flows.retain(|flow| !flow.jobs.is_empty());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The jobs that wait for this model, in no particular order.
    pub(super) fn jobs_of(&self, model: &ModelKey) -> Vec<JobId> {
        let flows = self.flows.iter().filter(|flow| flow.model == *model);
        flows.flat_map(|flow| flow.jobs.iter().copied()).collect()
    }

    /// The jobs whose preparation may begin: their models are ready, and there is room for their states.
    pub(super) fn may_begin(&self, view: View<'_>) -> Vec<JobId> {
        if self.flows.is_empty() {
            return Vec::new();
        }
        let fronts = self.fronts(view);
        let begun = Begun::count(view.jobs);
        let may_go = |entry: &&&JobEntry| {
            let is_free = view.models.is_ready(&entry.spec.model) && !fronts.gives_way(entry);
            is_free && begun.has_room(entry, view)
        };
        fronts
            .in_turn
            .iter()
            .filter(may_go)
            .map(|entry| entry.spec.id)
            .collect()
    }

    /// The next model to load: one that can take a place, and that a job waits for.
    pub(super) fn next_to_load(&self, view: View<'_>) -> Option<ModelKey> {
        let fronts = self.fronts(view);
        let is_cold = |entry: &&&JobEntry| {
            let model = &entry.spec.model;
            let has_none = !view.models.is_ready(model) && !view.models.is_loading(model);
            // A younger job's model would take the memory that an overdue one waits for.
            let waits_for_older =
                fronts.blocked_before(entry).is_some() || fronts.gathers_memory_before(entry);
            has_none && view.models.has_place(model) && !waits_for_older
        };
        let chosen = fronts.overdue().find(is_cold);
        let chosen = chosen.or_else(|| fronts.in_turn.iter().find(is_cold))?;
        Some(chosen.spec.model.clone())
    }

    /// A model that is ready and that nobody needs: no job runs on it, and those that wait for it give way.
    pub(super) fn next_to_unload(&self, view: View<'_>) -> Option<ModelKey> {
        let fronts = self.fronts(view);
        let is_needed = |model: &ModelKey| {
            let mut running = view.jobs.values().filter(|entry| entry.holds_model());
            let mut waiting = fronts.in_turn.iter().filter(|entry| !fronts.gives_way(entry));
            running.any(|entry| entry.spec.model == *model) || waiting.any(|entry| entry.spec.model == *model)
        };
        view.models.ready().find(|model| !is_needed(model)).cloned()
    }

    fn fronts<'a>(&self, view: View<'a>) -> Fronts<'a> {
        let ids = self.flows.iter().filter_map(|flow| flow.jobs.front());
        let in_turn: Vec<&JobEntry> = ids.filter_map(|id| view.jobs.get(id)).collect();
        let mut by_age = in_turn.clone();
        by_age.sort_by_key(|entry| entry.order);
        by_age.retain(|entry| view.is_overdue(entry));
        let no_place = |entry: &&&JobEntry| !view.models.has_place(&entry.spec.model);
        let blocked = by_age.iter().find(no_place).copied();
        Fronts {
            view,
            in_turn,
            by_age,
            blocked,
        }
    }

    /// Takes one of them out. Its flow goes to the end of the round.
    pub(super) fn take(&mut self, id: JobId) {
        let Some(at) = self.flows.iter().position(|flow| flow.jobs.front() == Some(&id)) else {
            return;
        };
        if let Some(mut flow) = self.flows.remove(at) {
            flow.jobs.pop_front();
            if !flow.jobs.is_empty() {
                self.flows.push_back(flow);
            }
        }
    }
}

/// The first job of every flow.
struct Fronts<'a> {
    view: View<'a>,
    in_turn: Vec<&'a JobEntry>,
    /// Those that have waited longer than the age bound, the oldest first.
    by_age: Vec<&'a JobEntry>,
    /// The oldest of them whose model has no place.
    blocked: Option<&'a JobEntry>,
}

impl<'a> Fronts<'a> {
    fn overdue(&self) -> std::slice::Iter<'_, &'a JobEntry> {
        self.by_age.iter()
    }

    /// The overdue job without a place that was admitted before this one, if there is one.
    fn blocked_before(&self, entry: &JobEntry) -> Option<&'a JobEntry> {
        self.blocked.filter(|blocked| blocked.order < entry.order)
    }

    /// Whether an overdue job that was admitted before this one has its model loaded once more, after there was no memory
    /// for it: what one place gave back is kept for it until another does.
    fn gathers_memory_before(&self, entry: &JobEntry) -> bool {
        let models = self.view.models;
        let gathers = |model: &ModelKey| models.is_loading(model) && models.is_short_of_memory(model);
        let mut older = self.by_age.iter().filter(|other| other.order < entry.order);
        older.any(|other| gathers(&other.spec.model))
    }

    /// Whether a job lets its model fall free for an older one that has no place.
    fn gives_way(&self, entry: &JobEntry) -> bool {
        let View {
            models, policy, now, ..
        } = self.view;
        self.blocked_before(entry).is_some()
            && models.stretch_is_over(&entry.spec.model, policy.age_bound, now)
    }
}

impl View<'_> {
    fn is_overdue(&self, entry: &JobEntry) -> bool {
        self.now.saturating_duration_since(entry.admitted_at) > self.policy.age_bound
    }
}

/// What is prepared, and what is being prepared.
struct Begun<'a> {
    rows: HashMap<(&'a ApiKeyId, &'a ModelKey, LatentSize), u32>,
    half_prepared: HashMap<&'a ApiKeyId, usize>,
}

impl<'a> Begun<'a> {
    fn count(jobs: &'a BTreeMap<JobId, JobEntry>) -> Self {
        let (mut rows, mut half_prepared) = (HashMap::new(), HashMap::new());
        for entry in jobs.values() {
            let spec = &entry.spec;
            match entry.stage {
                Stage::Waiting => {}
                Stage::Preparing { .. } => *half_prepared.entry(&spec.owner).or_default() += 1,
                Stage::Running { .. } => {
                    *rows.entry((&spec.owner, &spec.model, spec.latent)).or_default() +=
                        entry.rows_to_denoise();
                }
            }
        }
        Self { rows, half_prepared }
    }

    /// Whether few enough jobs of its owner are half prepared, and its like has few enough prepared rows. What would fit
    /// into the next forward always has room, and so has what is overdue.
    fn has_room(&self, entry: &JobEntry, view: View<'_>) -> bool {
        let spec = &entry.spec;
        if self
            .half_prepared
            .get(&spec.owner)
            .is_some_and(|jobs| *jobs >= MOST_HALF_PREPARED)
        {
            return false;
        }
        let prepared = self.rows.get(&(&spec.owner, &spec.model, spec.latent));
        let ahead = view.policy.prepare_ahead_rows;
        let room = view.policy.rows_per_forward(spec.latent).max(ahead);
        view.is_overdue(entry) || prepared.is_none_or(|rows| *rows < room)
    }
}
