//! The file: what it promises beyond the suite, and what becomes of it when the power, the disk or a bit fails.

mod crashes;
mod damage;
mod limits;
mod upgrade;

use std::path::PathBuf;

use pentimento_types::ManualClock;
use tempfile::TempDir;

use super::*;
use crate::conformance::{self, Fixture, sample_job};
use crate::memory::tests::{Jumping, outlives_a_jump};

const NAME: &str = "jobs.sqlite";
const LIMITS: JobLimits = JobLimits::in_number(2000, 1000);

fn clock() -> ManualClock {
    ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
}

fn open(folder: &Path) -> (SqliteJobs, Recovery) {
    SqliteJobs::open(&folder.join(NAME), Arc::new(clock()), LIMITS).unwrap()
}

/// What a kill leaves: the files as they are, while they are open.
fn copy_of(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        // What processes share while they run is nothing that a new one could use.
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs_err::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

fn fixture(folder: &Path, unfinished: usize, clock: &ManualClock) -> Fixture {
    let limits = JobLimits { unfinished, ..LIMITS };
    let jobs = SqliteJobs::open(&folder.join(NAME), Arc::new(clock.clone()), limits);
    let (jobs, _) = jobs.unwrap();
    Fixture::new(jobs.clone(), jobs.queue(), clock)
}

async fn insert(jobs: &SqliteJobs, id: u128) -> JobId {
    let id = JobId::from_u128(id);
    let place = jobs.reserve(&ApiKeyId::anonymous()).unwrap();
    jobs.insert(sample_job(id, SystemTime::UNIX_EPOCH), place)
        .await
        .unwrap();
    id
}

async fn ids(jobs: &SqliteJobs) -> Vec<u128> {
    let all = jobs.list(&JobFilter::default()).await.unwrap();
    all.iter().map(|job| job.id.as_uuid().as_u128()).collect()
}

#[tokio::test]
async fn a_clock_on_the_wall_that_is_set_forward_ends_nothing() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Jumping::new(clock()));
    let jobs = SqliteJobs::open(&folder.path().join(NAME), Arc::new(clock.clone()), LIMITS);
    outlives_a_jump(&clock, &jobs.unwrap().0).await;
}

#[tokio::test]
async fn passes_the_conformance_suite() {
    let folders = Mutex::new(Vec::new());
    conformance::run_all(|unfinished| {
        let folder = tempfile::tempdir().unwrap();
        let fixture = fixture(folder.path(), unfinished, &clock());
        folders.lock().unwrap().push(folder);
        fixture
    })
    .await;
}

#[tokio::test]
async fn passes_the_suite_of_what_outlives_the_process() {
    conformance::run_durable(|unfinished| {
        let clock = clock();
        let latest: Mutex<TempDir> = Mutex::new(tempfile::tempdir().unwrap());
        let all = Mutex::new(Vec::new());
        Box::new(move || {
            let mut latest = latest.lock().unwrap();
            let copy = copy_of(latest.path());
            let fixture = fixture(copy.path(), unfinished, &clock);
            all.lock().unwrap().push(std::mem::replace(&mut *latest, copy));
            fixture
        })
    })
    .await;
}

#[tokio::test]
async fn a_burst_shares_its_commits_and_every_job_of_it_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (jobs, _) = open(folder.path());
    let mut burst = tokio::task::JoinSet::new();
    for id in 1..=1000 {
        let jobs = jobs.clone();
        burst.spawn(async move { insert(&jobs, id).await });
    }
    assert_eq!(burst.join_all().await.len(), 1000);
    let left = copy_of(folder.path());
    let (after, recovery) = open(left.path());
    assert_eq!(recovery.unfinished, 1000);
    assert_eq!(ids(&after).await, (1..=1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_newer_file_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    insert(&open(folder.path()).0, 1).await;
    let path = folder.path().join(NAME);
    let newer = Connection::open(&path).unwrap();
    newer
        .pragma_update(None, "user_version", schema::VERSION + 1)
        .unwrap();
    drop(newer);
    let before = fs_err::read(&path).unwrap();
    let refused = SqliteJobs::open(&path, Arc::new(clock()), LIMITS).unwrap_err();
    assert!(
        matches!(refused, JobsError::NewerSchema { found, known } if found == known + 1),
        "{refused}"
    );
    assert!(refused.to_string().contains("--data DIR"), "{refused}");
    assert_eq!(fs_err::read(&path).unwrap(), before);
}

#[tokio::test]
async fn the_last_owner_closes_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (jobs, _) = open(folder.path());
    insert(&jobs, 1).await;
    let journal: PathBuf = folder.path().join(format!("{NAME}-wal"));
    assert!(journal.exists());
    drop(jobs);
    assert!(!journal.exists(), "the journal went into the file");
    assert_eq!(open(folder.path()).1.unfinished, 1);
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_reads_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    insert(&open(folder.path()).0, 1).await;
    let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    // As an earlier version has made it.
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (jobs, _) = open(folder.path());
    insert(&jobs, 2).await;
    for entry in fs_err::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}
