//! Who is prepared next: round robin over models and sizes, first come first served within one.
//!
//! Two limits hold a job back: rows prepared ahead of the denoising, which the age bound overrides, and the number of
//! models in use, which it does not: instead nothing admitted after the overdue job is prepared until a model is free.

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
        let gate = ModelGate::new(jobs, policy);
        let mut fronts: Vec<&JobEntry> = self.fronts().filter_map(|id| jobs.get(&id)).collect();
        fronts.sort_by_key(|entry| entry.order);
        let overdue = |entry: &&JobEntry| now.saturating_duration_since(entry.admitted_at) > policy.age_bound;
        // Once a job has waited too long for its model, only those before it may go, so that a model falls free.
        let blocked = fronts
            .iter()
            .copied()
            .filter(overdue)
            .find(|entry| !gate.admits(&entry.spec.model));
        let last_order = blocked.map_or(u64::MAX, |entry| entry.order);
        let may_go = |entry: &&JobEntry| entry.order < last_order && gate.admits(&entry.spec.model);

        let oldest = fronts
            .iter()
            .copied()
            .filter(overdue)
            .find(may_go)
            .map(|entry| entry.spec.id);
        let chosen = oldest.or_else(|| {
            let in_turn = self.fronts().filter_map(|id| jobs.get(&id)).filter(may_go);
            in_turn
                .into_iter()
                .find(|entry| has_room(entry, jobs, policy))
                .map(|entry| entry.spec.id)
        })?;
        self.take_front(chosen);
        Some(chosen)
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
struct ModelGate<'a> {
    in_use: BTreeSet<&'a ModelKey>,
    limit: usize,
}

impl<'a> ModelGate<'a> {
    fn new(jobs: &'a BTreeMap<JobId, JobEntry>, policy: &BatchPolicy) -> Self {
        let holders = jobs.values().filter(|entry| entry.holds_model());
        Self {
            in_use: holders.map(|entry| &entry.spec.model).collect(),
            limit: policy.max_models.max(1),
        }
    }

    fn admits(&self, model: &ModelKey) -> bool {
        self.in_use.contains(model) || self.in_use.len() < self.limit
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
