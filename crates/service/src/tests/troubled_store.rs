//! A job store that pauses, panics and fails when a test tells it to.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use pentimento_jobs::{
    Inserted, JobCounts, JobFilter, JobLimits, JobPlace, JobStore, JobsError, MemoryJobs, Transition,
};
use tokio::sync::oneshot;

use super::*;
use crate::ServiceParts;

/// Where a list that has been made is held: told that it is made, and let go.
type Pause = (oneshot::Sender<()>, oneshot::Receiver<()>);

/// All troubles but one come once.
#[derive(Debug)]
pub(super) struct TroubledStore {
    jobs: Arc<MemoryJobs>,
    list_of_unfinished: Mutex<Option<Pause>>,
    insert: Mutex<Option<Pause>>,
    pub(super) panics_at_fetched: AtomicBool,
    pub(super) fails_at_fail: AtomicBool,
    /// As long as it is set.
    pub(super) lists_nothing: AtomicBool,
    /// Other machines share the records.
    pub(super) is_shared: AtomicBool,
    /// And all jobs that have ended were accepted by one of them.
    pub(super) ends_are_others: AtomicBool,
}

impl TroubledStore {
    /// A service over it.
    pub(super) fn start(executor: FakeExecutor) -> (Arc<Self>, TestService) {
        Self::start_with(executor, TestConfig::default())
    }

    /// The same by another clock.
    pub(super) fn start_with(executor: FakeExecutor, config: TestConfig) -> (Arc<Self>, TestService) {
        let limits = JobLimits::in_number(10, 10);
        let jobs = Arc::new(MemoryJobs::new(Arc::clone(&config.clock), limits));
        let service = config.service.clone();
        let test = TestService::start_with(executor, config);
        let store = Arc::new(Self {
            jobs: Arc::clone(&jobs),
            list_of_unfinished: Mutex::default(),
            insert: Mutex::default(),
            panics_at_fetched: AtomicBool::new(false),
            fails_at_fail: AtomicBool::new(false),
            lists_nothing: AtomicBool::new(false),
            is_shared: AtomicBool::new(false),
            ends_are_others: AtomicBool::new(false),
        });
        let parts = ServiceParts {
            store: Arc::clone(&store) as Arc<_>,
            queue: jobs.queue(),
            outbox: jobs,
            ..test.parts
        };
        let service = Service::start(parts.clone(), service);
        let engine = test.engine;
        (
            store,
            TestService {
                service,
                parts,
                engine,
            },
        )
    }

    /// Holds the next list of unfinished jobs after it is made: the first tells when it is, the second lets it go.
    pub(super) fn hold_list(&self) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        hold(&self.list_of_unfinished)
    }

    /// The same for the next job, once it is stored.
    pub(super) fn hold_insert(&self) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        hold(&self.insert)
    }
}

fn hold(at: &Mutex<Option<Pause>>) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
    let (made, is_made) = oneshot::channel();
    let (let_go, wait) = oneshot::channel();
    *at.lock().unwrap() = Some((made, wait));
    (is_made, let_go)
}

#[async_trait]
impl JobStore for TroubledStore {
    fn is_ours(&self, job: &Job) -> bool {
        !(job.state.is_final() && self.ends_are_others.load(Ordering::Relaxed))
    }

    fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    fn reserve_within(&self, owner: &ApiKeyId, most: usize) -> Result<JobPlace, JobsError> {
        self.jobs.reserve_within(owner, most)
    }

    async fn insert(&self, job: Job, place: JobPlace) -> Result<Inserted, JobsError> {
        let inserted = self.jobs.insert(job, place).await;
        let pause = self.insert.lock().unwrap().take();
        if let Some((made, wait)) = pause {
            made.send(()).expect("the test waits");
            let _ = wait.await;
        }
        inserted
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>, JobsError> {
        self.jobs.get(id).await
    }

    async fn find_by_number(&self, dialect: &str, number: u64) -> Result<Option<Job>, JobsError> {
        self.jobs.find_by_number(dialect, number).await
    }

    async fn find_by_key(&self, owner: &ApiKeyId, key: &str) -> Result<Option<Job>, JobsError> {
        self.jobs.find_by_key(owner, key).await
    }

    async fn transition(&self, id: JobId, transition: Transition) -> Result<Job, JobsError> {
        let fetched = matches!(transition, Transition::Fetched { .. });
        assert!(
            !(fetched && self.panics_at_fetched.swap(false, Ordering::Relaxed)),
            "a panic that a test asked for"
        );
        let fail = matches!(transition, Transition::Fail { .. });
        if fail && self.fails_at_fail.swap(false, Ordering::Relaxed) {
            return Err(JobsError::Backend {
                what: "write",
                source: "a fault that a test asked for".into(),
            });
        }
        self.jobs.transition(id, transition).await
    }

    async fn wait_until_ended(&self, id: JobId) -> Result<Job, JobsError> {
        self.jobs.wait_until_ended(id).await
    }

    async fn list(&self, filter: &JobFilter) -> Result<Vec<Job>, JobsError> {
        if self.lists_nothing.load(Ordering::Relaxed) {
            return Err(JobsError::Backend {
                what: "read",
                source: "a fault that a test asked for".into(),
            });
        }
        let list = self.jobs.list(filter).await;
        if filter.states.len() == 3 {
            let pause = self.list_of_unfinished.lock().unwrap().take();
            if let Some((made, wait)) = pause {
                made.send(()).expect("the test waits");
                let _ = wait.await;
            }
        }
        list
    }

    async fn counts(&self) -> Result<JobCounts, JobsError> {
        self.jobs.counts().await
    }

    async fn remove(&self, id: JobId) -> Result<bool, JobsError> {
        self.jobs.remove(id).await
    }

    async fn expire(&self, finished_before: SystemTime) -> Result<Vec<JobId>, JobsError> {
        self.jobs.expire(finished_before).await
    }
}
