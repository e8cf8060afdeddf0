//! Who is prepared next: round robin over models and sizes, first come first served within one.
//!
//! Two limits hold a job back. Rows prepared ahead of the denoising: the age bound overrides that. The number of models
//! in use: it cannot be overridden, so once a job is overdue, models that have been in use for the age bound get no job
//! that was admitted after it, and fall free. A model so stays for a stretch, however many jobs wait, and none thrashes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use pentimento_types::JobId;

use super::job::JobEntry;
use crate::{BatchPolicy, LatentSize, ModelKey};

#[derive(Debug)]
struct Flow {
    model: ModelKey,
    latent: LatentSize,
    jobs: VecDeque<JobId>,
}

/// Jobs that are admitted and not yet prepared.
#[derive(Debug, Default)]
pub(super) struct WaitingLine {
    flows: VecDeque<Flow>,
    /// Since when each model is in use.
    stretches: BTreeMap<ModelKey, Instant>,
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
        let same = |flow: &Flow| flow.model == spec.model && flow.latent == spec.latent;
        let at = self.flows.iter().position(same).unwrap_or_else(|| {
            self.flows.push_back(Flow {
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

    /// Takes the next job to prepare out of the line.
    pub(super) fn take(
        &mut self,
        jobs: &BTreeMap<JobId, JobEntry>,
        policy: &BatchPolicy,
        now: Instant,
    ) -> Option<JobId> {
        let gate = self.model_gate(jobs, policy, now);
        let mut fronts: Vec<&JobEntry> = self.fronts().filter_map(|id| jobs.get(&id)).collect();
        fronts.sort_by_key(|entry| entry.order);
        let overdue = |entry: &&JobEntry| now.saturating_duration_since(entry.admitted_at) > policy.age_bound;
        let blocked = fronts
            .iter()
            .copied()
            .filter(overdue)
            .find(|entry| !gate.has_place(&entry.spec.model));
        let may_go = |entry: &&JobEntry| {
            let model = &entry.spec.model;
            let gives_way =
                blocked.is_some_and(|blocked| blocked.order < entry.order) && gate.stretch_is_over(model);
            gate.has_place(model) && !gives_way
        };

        let oldest = fronts.iter().copied().filter(overdue).find(may_go);
        let in_turn = || self.fronts().filter_map(|id| jobs.get(&id)).filter(may_go);
        let chosen = oldest.or_else(|| in_turn().find(|entry| has_room(entry, jobs, policy)))?;
        let (id, model) = (chosen.spec.id, chosen.spec.model.clone());
        self.stretches.entry(model).or_insert(now);
        self.take_front(id);
        Some(id)
    }

    fn model_gate(
        &mut self,
        jobs: &BTreeMap<JobId, JobEntry>,
        policy: &BatchPolicy,
        now: Instant,
    ) -> ModelGate {
        let in_use: BTreeSet<&ModelKey> = jobs
            .values()
            .filter(|entry| entry.holds_model())
            .map(|entry| &entry.spec.model)
            .collect();
        self.stretches.retain(|model, _| in_use.contains(model));
        let over = |since: Instant| now.saturating_duration_since(since) > policy.age_bound;
        ModelGate {
            in_use: self
                .stretches
                .iter()
                .map(|(model, since)| (model.clone(), over(*since)))
                .collect(),
            limit: policy.max_models.max(1),
        }
    }

    fn fronts(&self) -> impl Iterator<Item = JobId> {
        self.flows.iter().filter_map(|flow| flow.jobs.front().copied())
    }

    /// The flow that was served goes to the end of the round.
    fn take_front(&mut self, id: JobId) {
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

/// Which models a job may be prepared on now.
struct ModelGate {
    /// Whether each model's stretch is over.
    in_use: BTreeMap<ModelKey, bool>,
    limit: usize,
}

impl ModelGate {
    fn has_place(&self, model: &ModelKey) -> bool {
        self.in_use.contains_key(model) || self.in_use.len() < self.limit
    }

    fn stretch_is_over(&self, model: &ModelKey) -> bool {
        self.in_use.get(model).is_some_and(|over| *over)
    }
}

/// Whether a job's like has few enough prepared rows. What would fit into the next forward always has room.
fn has_room(entry: &JobEntry, jobs: &BTreeMap<JobId, JobEntry>, policy: &BatchPolicy) -> bool {
    let spec = &entry.spec;
    let alike = jobs
        .values()
        .filter(|other| other.spec.model == spec.model && other.spec.latent == spec.latent);
    let prepared: u32 = alike.map(JobEntry::rows_to_denoise).sum();
    prepared
        < policy
            .rows_per_forward(spec.latent)
            .max(policy.prepare_ahead_rows)
}
