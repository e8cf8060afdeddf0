//! The only place where a job's state changes: pure functions from a job and a transition to the changed job or a refusal.
//!
//! ```text
//!            Start                Succeed
//!  Queued ──────────▶ Running ──────────────▶ Succeeded
//!  ▲ ▲                 │ │  ▲
//!  │ │ Requeue         │ │  │ Start (its lease ran out)
//!  │ │ PutBack, Crash  │ │  │
//!  │ └─────────────────┘ └──┘
//!  │ Fetched
//!  Fetching      Fetching, Queued, Running ── Fail ──▶ Failed      the same three ── Cancel ──▶ Cancelled
//! ```
//!
//! A final state stays. `attempt` counts the starts, and whoever speaks for an older attempt is refused (fencing), so a
//! worker that was given up for dead cannot overwrite the work of its successor. Ends of attempts that are held against the
//! job are counted apart: `faults` by a requeue, `crashes` by an attempt that never ended.

use std::time::SystemTime;

use pentimento_types::{Job, JobFailure, JobNote, JobOutcome, JobState, StoredImage};

/// A change that is asked for. `attempt` is the attempt that the asker saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Transition {
    /// The input images are there: fetching to queued.
    Fetched {
        /// What was found out about them.
        notes: Vec<JobNote>,
        /// The job's [`Job::work`], now that the images' size is known.
        work: u64,
        /// The recipe's [`pentimento_types::Recipe::keeps_everything`], now that the mask is.
        keeps_everything: bool,
    },
    /// A worker begins: queued (or running, after a lost lease) to running; `attempt` grows by one.
    Start {
        /// As seen in the job before.
        attempt: u32,
    },
    /// The attempt failed in a way that another may not: running to queued.
    Requeue {
        /// The running one.
        attempt: u32,
        /// The next attempt does not begin before this time; None is at once.
        not_before: Option<SystemTime>,
    },
    /// The server stops before the attempt has ended, which is held against nobody: running to queued.
    PutBack {
        /// The running one.
        attempt: u32,
    },
    /// The attempt ended with its process: running to queued. For a store that finds such a job when it is opened.
    Crash {
        /// The running one.
        attempt: u32,
    },
    /// All pictures are stored: running to succeeded.
    Succeed {
        /// The running one.
        attempt: u32,
        /// The images, in order.
        images: Vec<StoredImage>,
        /// When the device began with them, which may be long after the attempt began; None keeps that time.
        began_at: Option<SystemTime>,
    },
    /// There will be no pictures: from any state that is not final to failed.
    Fail {
        /// As seen in the job.
        attempt: u32,
        /// Why.
        failure: JobFailure,
    },
    /// The caller does not want it any more: from any state that is not final to cancelled.
    Cancel,
}

/// Why a transition was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The job has ended.
    Ended,
    /// The job is in a state that the transition does not start from.
    WrongState,
    /// A later attempt has begun.
    StaleAttempt,
}

/// A refused transition. The job is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {transition} a job that is {state:?} in attempt {attempt}")]
pub struct TransitionRefused {
    /// The verb.
    pub transition: &'static str,
    /// Where the job is.
    pub state: JobState,
    /// Its attempt.
    pub attempt: u32,
    /// Why.
    pub reason: Refusal,
}

impl Transition {
    /// The verb, for logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Fetched { .. } => "queue",
            Self::Start { .. } => "start",
            Self::Requeue { .. } => "requeue",
            Self::PutBack { .. } => "put back",
            Self::Crash { .. } => "recover",
            Self::Succeed { .. } => "succeed",
            Self::Fail { .. } => "fail",
            Self::Cancel => "cancel",
        }
    }

    /// The attempt that the asker speaks for; a caller's cancel speaks for all.
    const fn attempt(&self) -> Option<u32> {
        match self {
            Self::Start { attempt }
            | Self::Requeue { attempt, .. }
            | Self::PutBack { attempt }
            | Self::Crash { attempt }
            | Self::Succeed { attempt, .. }
            | Self::Fail { attempt, .. } => Some(*attempt),
            // No attempt has begun, and a cancel is the caller's.
            Self::Fetched { .. } | Self::Cancel => None,
        }
    }

    const fn starts_from(&self, state: JobState) -> bool {
        match self {
            Self::Fetched { .. } => matches!(state, JobState::Fetching),
            Self::Start { .. } => matches!(state, JobState::Queued | JobState::Running),
            Self::Fail { .. } | Self::Cancel => !state.is_final(),
            Self::Requeue { .. } | Self::PutBack { .. } | Self::Crash { .. } | Self::Succeed { .. } => {
                matches!(state, JobState::Running)
            }
        }
    }

    /// Changes the job, or leaves it as it is and says why.
    ///
    /// # Errors
    /// [`TransitionRefused`].
    pub fn apply(self, job: &mut Job, now: SystemTime) -> Result<(), TransitionRefused> {
        let reason = if job.state.is_final() {
            Some(Refusal::Ended)
        } else if self.attempt().is_some_and(|attempt| attempt != job.attempt) {
            Some(Refusal::StaleAttempt)
        } else if !self.starts_from(job.state) {
            Some(Refusal::WrongState)
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(TransitionRefused {
                transition: self.name(),
                state: job.state,
                attempt: job.attempt,
                reason,
            });
        }
        match self {
            Self::Fetched {
                notes,
                work,
                keeps_everything,
            } => {
                job.state = JobState::Queued;
                job.work = work;
                job.recipe.keeps_everything = keeps_everything;
                job.notes.extend(notes);
            }
            Self::Start { .. } => {
                // Nobody ended the attempt before.
                job.crashes += u32::from(job.state == JobState::Running);
                job.state = JobState::Running;
                job.attempt += 1;
                job.started_at = Some(now);
                job.not_before = None;
            }
            Self::Requeue { not_before, .. } => {
                job.faults += 1;
                queue_again(job, not_before);
            }
            Self::PutBack { .. } => queue_again(job, None),
            Self::Crash { .. } => {
                job.crashes += 1;
                queue_again(job, None);
            }
            Self::Succeed { images, began_at, .. } => {
                job.started_at = began_at.or(job.started_at);
                end(job, JobState::Succeeded, JobOutcome::Succeeded(images), now);
            }
            Self::Fail { failure, .. } => {
                if failure.kind.is_retryable() {
                    // Or whoever sends the request again, as the failure asks for, would only be told of it again.
                    job.idempotency = None;
                }
                end(job, JobState::Failed, JobOutcome::Failed(failure), now);
            }
            Self::Cancel => end(job, JobState::Cancelled, JobOutcome::Cancelled, now),
        }
        Ok(())
    }
}

/// Whether a copy of a record is further in the life of its job than another one. Several copies meet where several machines
/// share jobs, and the later one counts.
#[must_use]
pub const fn is_later(copy: &Job, than: &Job) -> bool {
    place_in_life(copy) > place_in_life(than)
}

/// A number that only grows: each attempt has one for running and one for waiting after it.
const fn place_in_life(job: &Job) -> u64 {
    match job.state {
        JobState::Fetching => 0,
        JobState::Queued => 2 * job.attempt as u64 + 1,
        JobState::Running => 2 * job.attempt as u64,
        JobState::Succeeded | JobState::Failed | JobState::Cancelled => u64::MAX,
    }
}

const fn queue_again(job: &mut Job, not_before: Option<SystemTime>) {
    job.state = JobState::Queued;
    job.started_at = None;
    job.not_before = not_before;
}

fn end(job: &mut Job, state: JobState, outcome: JobOutcome, now: SystemTime) {
    job.state = state;
    job.outcome = Some(outcome);
    job.finished_at = Some(now);
}

#[cfg(test)]
mod tests {
    use pentimento_types::{ErrorKind, Idempotency, JobId};
    use proptest::prelude::*;

    use super::*;
    use crate::conformance::sample_job;

    fn failure() -> JobFailure {
        JobFailure {
            kind: ErrorKind::Internal,
            message: "a fault".to_owned(),
        }
    }

    fn any_transition() -> impl Strategy<Value = Transition> {
        prop_oneof![
            (0..4_u32).prop_map(|attempt| Transition::Start { attempt }),
            (0..4_u32).prop_map(|attempt| Transition::Requeue {
                attempt,
                not_before: None
            }),
            (0..4_u32).prop_map(|attempt| Transition::PutBack { attempt }),
            (0..4_u32).prop_map(|attempt| Transition::Crash { attempt }),
            (0..4_u32).prop_map(|attempt| Transition::Succeed {
                attempt,
                images: Vec::new(),
                began_at: None
            }),
            (0..4_u32).prop_map(|attempt| Transition::Fail {
                attempt,
                failure: failure()
            }),
            Just(Transition::Cancel),
            Just(Transition::Fetched {
                notes: Vec::new(),
                work: 7,
                keeps_everything: false
            }),
        ]
    }

    proptest! {
        /// Whatever is asked for in whatever order: a refusal changes nothing, a final state stays, an outcome is there
        /// exactly in the final states, and attempts only grow, by one, with a start.
        #[test]
        fn every_history_is_a_path_of_the_machine(
            fetching in any::<bool>(),
            transitions in prop::collection::vec(any_transition(), 0..40),
        ) {
            let now = SystemTime::UNIX_EPOCH;
            let mut job = sample_job(JobId::from_u128(1), now);
            if fetching {
                job.state = JobState::Fetching;
            }
            for transition in transitions {
                let before = job.clone();
                let starts = matches!(transition, Transition::Start { .. });
                match transition.apply(&mut job, now) {
                    Ok(()) => {
                        prop_assert!(!before.state.is_final());
                        prop_assert_eq!(job.attempt, before.attempt + u32::from(starts));
                        prop_assert!(job.crashes + job.faults <= job.attempt);
                    }
                    Err(_) => prop_assert_eq!(&job, &before),
                }
                prop_assert_eq!(job.outcome.is_some(), job.state.is_final());
                prop_assert_eq!(job.finished_at.is_some(), job.state.is_final());
            }
        }
    }

    #[test]
    fn an_old_attempt_cannot_end_its_successor() {
        let now = SystemTime::UNIX_EPOCH;
        let mut job = sample_job(JobId::from_u128(1), now);
        Transition::Start { attempt: 0 }.apply(&mut job, now).unwrap();
        // The lease of attempt 1 runs out and another worker starts.
        Transition::Start { attempt: 1 }.apply(&mut job, now).unwrap();
        let refused = Transition::Succeed {
            attempt: 1,
            images: Vec::new(),
            began_at: None,
        }
        .apply(&mut job, now)
        .unwrap_err();
        assert_eq!(refused.reason, Refusal::StaleAttempt);
        assert_eq!((job.state, job.attempt), (JobState::Running, 2));
        assert_eq!(
            (job.crashes, job.faults),
            (1, 0),
            "nobody ended the first attempt"
        );
        // Two workers that saw the same attempt cannot both start.
        let refused = Transition::Start { attempt: 1 }.apply(&mut job, now).unwrap_err();
        assert_eq!(refused.reason, Refusal::StaleAttempt);
    }

    #[test]
    fn a_job_that_does_not_run_cannot_be_requeued_or_succeed() {
        let now = SystemTime::UNIX_EPOCH;
        let mut job = sample_job(JobId::from_u128(1), now);
        let requeue = Transition::Requeue {
            attempt: 0,
            not_before: None,
        };
        let succeed = Transition::Succeed {
            attempt: 0,
            images: Vec::new(),
            began_at: None,
        };
        for (transition, verb) in [(requeue, "requeue"), (succeed, "succeed")] {
            let refused = transition.apply(&mut job, now).unwrap_err();
            assert_eq!(refused.reason, Refusal::WrongState);
            assert_eq!(
                refused.to_string(),
                format!("cannot {verb} a job that is Queued in attempt 0")
            );
        }
    }

    #[test]
    fn only_attempts_that_went_wrong_are_held_against_a_job() {
        let now = SystemTime::UNIX_EPOCH;
        let mut job = sample_job(JobId::from_u128(1), now);
        let ends = [
            (Transition::PutBack { attempt: 1 }, (0, 0)),
            (Transition::Crash { attempt: 2 }, (1, 0)),
            (
                Transition::Requeue {
                    attempt: 3,
                    not_before: None,
                },
                (1, 1),
            ),
            (Transition::PutBack { attempt: 4 }, (1, 1)),
        ];
        for (attempt, (end, counted)) in (0..).zip(ends) {
            Transition::Start { attempt }.apply(&mut job, now).unwrap();
            end.apply(&mut job, now).unwrap();
            assert_eq!((job.state, job.started_at), (JobState::Queued, None));
            assert_eq!((job.crashes, job.faults), counted);
        }
        assert_eq!(job.attempt, 4);
    }

    #[test]
    fn a_job_without_its_images_does_not_start() {
        let now = SystemTime::UNIX_EPOCH;
        let known = JobNote::NoLcmLora {
            checkpoint: "tiny".to_owned(),
        };
        let mut job = Job {
            state: JobState::Fetching,
            notes: vec![known.clone()],
            ..sample_job(JobId::from_u128(1), now)
        };
        let start = Transition::Start { attempt: 0 };
        assert_eq!(
            start.clone().apply(&mut job, now).unwrap_err().reason,
            Refusal::WrongState
        );
        let fetched = Transition::Fetched {
            notes: vec![JobNote::MaskIsAlpha],
            work: 7,
            keeps_everything: true,
        };
        fetched.clone().apply(&mut job, now).unwrap();
        assert_eq!((job.state, job.work), (JobState::Queued, 7));
        assert!(job.recipe.keeps_everything);
        assert_eq!(job.notes, [known, JobNote::MaskIsAlpha]);
        assert_eq!(
            fetched.apply(&mut job, now).unwrap_err().reason,
            Refusal::WrongState
        );
        start.apply(&mut job, now).unwrap();
    }

    #[test]
    fn a_failure_that_another_try_may_not_have_gives_the_requests_key_back() {
        let now = SystemTime::UNIX_EPOCH;
        let mut job = sample_job(JobId::from_u128(1), now);
        job.idempotency = Some(Idempotency {
            key: "once".to_owned(),
            digest: "d".to_owned(),
        });
        for kind in [
            ErrorKind::InvalidInput,
            ErrorKind::Unavailable,
            ErrorKind::BadModel,
        ] {
            let mut job = job.clone();
            let failure = JobFailure { kind, ..failure() };
            Transition::Fail { attempt: 0, failure }
                .apply(&mut job, now)
                .unwrap();
            assert_eq!(job.idempotency.is_none(), kind == ErrorKind::Unavailable);
        }
        Transition::Cancel.apply(&mut job, now).unwrap();
        assert!(job.idempotency.is_some());
    }

    #[test]
    fn the_time_of_an_attempt_begins_with_it() {
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let mut job = sample_job(JobId::from_u128(1), at(0));
        assert_eq!(job.started_at, None);
        Transition::Start { attempt: 0 }.apply(&mut job, at(5)).unwrap();
        assert_eq!(job.started_at, Some(at(5)));
        let later = Transition::Requeue {
            attempt: 1,
            not_before: Some(at(9)),
        };
        later.apply(&mut job, at(6)).unwrap();
        assert_eq!((job.started_at, job.not_before), (None, Some(at(9))));
        Transition::Start { attempt: 1 }.apply(&mut job, at(9)).unwrap();
        assert_eq!((job.started_at, job.not_before), (Some(at(9)), None));
        let ended = Transition::Succeed {
            attempt: 2,
            images: Vec::new(),
            began_at: Some(at(10)),
        };
        ended.apply(&mut job, at(11)).unwrap();
        assert_eq!((job.started_at, job.finished_at), (Some(at(10)), Some(at(11))));
    }
}
