//! Bounds on what is kept, and a disk that is full.

use super::*;
use crate::sqlite::memory::Memory;
use crate::sqlite::writer::Tables;

async fn end(jobs: &SqliteJobs, id: JobId) {
    jobs.transition(id, Transition::Cancel).await.unwrap();
}

#[tokio::test]
async fn the_oldest_ended_jobs_are_forgotten_and_a_waiter_still_gets_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let limits = JobLimits {
        finished: 2,
        ..LIMITS
    };
    let reopen = || {
        SqliteJobs::open(&folder.path().join(NAME), Arc::new(clock()), limits)
            .unwrap()
            .0
    };
    let jobs = reopen();
    for id in 1..=4 {
        insert(&jobs, id).await;
    }
    let first = JobId::from_u128(3);
    let waiting = tokio::spawn({
        let jobs = jobs.clone();
        async move { jobs.wait_until_ended(first).await }
    });
    tokio::task::yield_now().await;
    // In the order of their ends, and not of their making.
    for id in [3, 1, 2] {
        end(&jobs, JobId::from_u128(id)).await;
    }
    assert_eq!(ids(&jobs).await, [1, 2, 4]);
    assert_eq!(waiting.await.unwrap().unwrap().state, JobState::Cancelled);
    drop(jobs);
    let jobs = reopen();
    end(&jobs, JobId::from_u128(4)).await;
    assert_eq!(ids(&jobs).await, [2, 4], "they are counted again after a start");
}

#[tokio::test]
async fn ended_jobs_are_bounded_in_bytes() {
    const BYTES: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let limits = JobLimits {
        finished_bytes: BYTES,
        ..LIMITS
    };
    let path = folder.path().join(NAME);
    let (jobs, _) = SqliteJobs::open(&path, Arc::new(clock()), limits).unwrap();
    for id in 1..=30 {
        let mut job = sample_job(JobId::from_u128(id), SystemTime::UNIX_EPOCH);
        job.recipe.prompt = "🎨".repeat(25_000);
        let place = jobs.reserve(&job.owner).unwrap();
        jobs.insert(job, place).await.unwrap();
        end(&jobs, JobId::from_u128(id)).await;
    }
    assert_eq!(ids(&jobs).await, (21..=30).collect::<Vec<_>>());
    let pages = fs_err::metadata(&path).unwrap().len();
    assert!(pages < 8 * BYTES, "the room is used again: {pages}");
}

/// Lets the file grow no further, as a full disk does.
struct Squeeze {
    pages: i64,
    answer: Answer<()>,
}

impl Write for Squeeze {
    fn what(&self) -> &'static str {
        "squeeze"
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError> {
        let set = tables
            .db
            .pragma_update_and_check(None, "max_page_count", self.pages, |_| Ok(()));
        Ok(set?)
    }

    fn publish(self: Box<Self>, _: &Memory, written: Result<(), JobsError>) {
        let _ = self.answer.send(written);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_whole_jobs_and_recovers_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (jobs, _) = open(folder.path());
    let first = insert(&jobs, 1).await;
    let squeeze = async |pages| {
        let squeezed = jobs.write("squeeze", |answer| Box::new(Squeeze { pages, answer }));
        squeezed.await.unwrap();
    };
    // SQLite takes no fewer than there are.
    squeeze(1).await;
    let mut job = sample_job(JobId::from_u128(2), SystemTime::UNIX_EPOCH);
    job.recipe.prompt = "long".repeat(10_000);
    let place = jobs.reserve(&job.owner).unwrap();
    let refused = jobs.insert(job.clone(), place).await.unwrap_err();
    assert_eq!(refused.to_string(), "could not store the job");
    assert_eq!(jobs.get(job.id).await.unwrap(), None);
    assert_eq!(jobs.counts().await.unwrap().queued, 1, "its place is free again");
    end(&jobs, first).await;
    squeeze(1_000_000).await;
    let place = jobs.reserve(&job.owner).unwrap();
    jobs.insert(job.clone(), place).await.unwrap();
    let left = copy_of(folder.path());
    let (after, _) = open(left.path());
    assert_eq!(after.get(job.id).await.unwrap(), Some(job));
}

#[test]
fn reads_that_wait_for_each_other_leave_threads_to_others() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(2).build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (jobs, _) = open(folder.path());
    let (hold, held) = std::sync::mpsc::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let slow = std::thread::spawn({
        let jobs = jobs.clone();
        move || {
            let _reader = jobs.file.reader.lock().unwrap();
            hold.send(()).unwrap();
            let _ = ends.recv();
        }
    });
    held.recv().unwrap();
    runtime.block_on(async {
        let mut reads = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let jobs = jobs.clone();
            reads.spawn(async move { ids(&jobs).await });
        }
        tokio::task::yield_now().await;
        let other = tokio::task::spawn_blocking(|| ());
        let other = tokio::time::timeout(Duration::from_secs(10), other).await;
        drop(end);
        assert!(other.is_ok(), "every thread waits for the connection");
        assert_eq!(reads.join_all().await, vec![Vec::<u128>::new(); 8]);
    });
    slow.join().unwrap();
}
