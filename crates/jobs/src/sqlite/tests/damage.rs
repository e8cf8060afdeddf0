//! Bits that flip on the disk: what they meet is set aside, and everything else goes on.

use super::*;

/// Changes a row as no program of ours would.
fn tamper(folder: &Path, sql: &str) {
    let db = Connection::open(folder.join(NAME)).unwrap();
    assert!(db.execute(sql, []).unwrap() >= 1, "{sql}");
}

async fn file_with_jobs(count: u128) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (jobs, _) = open(folder.path());
    for id in 1..=count {
        insert(&jobs, id).await;
    }
    folder
}

#[tokio::test]
async fn a_record_with_a_flipped_bit_is_set_aside_and_the_others_run() {
    let folder = file_with_jobs(3).await;
    tamper(
        folder.path(),
        "UPDATE jobs SET record = replace(record, 'red house', 'rad house') WHERE number = 2",
    );
    let (jobs, recovery) = open(folder.path());
    assert_eq!((recovery.unfinished, recovery.damaged), (2, 1));
    assert_eq!(recovery.damaged_file, None);
    assert_eq!(ids(&jobs).await, [1, 3]);
    assert_eq!(jobs.get(JobId::from_u128(2)).await.unwrap(), None);
    drop(jobs);
    let (_, again) = open(folder.path());
    assert_eq!((again.unfinished, again.damaged), (2, 0), "it is told once");
    let db = Connection::open(folder.path().join(NAME)).unwrap();
    let kept: String = db
        .query_row("SELECT CAST(record AS TEXT) FROM damaged", [], |row| row.get(0))
        .unwrap();
    assert!(kept.contains("rad house"), "kept for whoever looks into it");
}

#[tokio::test]
async fn columns_that_disagree_with_a_whole_record_are_written_again() {
    for change in [
        "UPDATE jobs SET state = 'succeeded' WHERE number = 1",
        "UPDATE jobs SET state = 'running' WHERE number = 1",
        "UPDATE jobs SET owner = 'somebody' WHERE number = 1",
        "UPDATE jobs SET ended = 7 WHERE number = 1",
        "UPDATE jobs SET id = x'00' WHERE number = 1",
    ] {
        let folder = file_with_jobs(2).await;
        tamper(folder.path(), change);
        let (jobs, recovery) = open(folder.path());
        assert_eq!((recovery.unfinished, recovery.damaged), (2, 0), "{change}");
        assert_eq!(ids(&jobs).await, [1, 2], "{change}");
        let job = jobs.transition(JobId::from_u128(1), Transition::Cancel).await;
        assert_eq!(job.unwrap().state, JobState::Cancelled, "{change}");
    }
}

#[tokio::test]
async fn a_record_that_is_damaged_while_the_server_runs_is_an_error_and_not_a_wrong_job() {
    let folder = file_with_jobs(2).await;
    let (jobs, _) = open(folder.path());
    tamper(folder.path(), "UPDATE jobs SET checksum = x'00' WHERE number = 1");
    let damaged = jobs.transition(JobId::from_u128(1), Transition::Cancel).await;
    assert!(matches!(damaged, Err(JobsError::Backend { .. })), "{damaged:?}");
    // A write that shares its commit is not spoilt.
    let both = tokio::join!(
        jobs.transition(JobId::from_u128(1), Transition::Cancel),
        jobs.transition(JobId::from_u128(2), Transition::Cancel)
    );
    assert!(both.0.is_err() && both.1.is_ok());
}

#[tokio::test]
async fn any_flipped_bit_of_the_file_leaves_a_server_that_starts_and_knows_most_jobs() {
    const JOBS: u128 = 40;
    let folder = file_with_jobs(JOBS).await;
    let whole = fs_err::read(folder.path().join(NAME)).unwrap();
    // The version of the schema: another one is refused, see there.
    let of_version = 60..64;
    let mut rebuilt = 0;
    for at in (0..whole.len()).step_by(whole.len() / 150).chain(16..100) {
        if of_version.contains(&at) {
            continue;
        }
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join(NAME), &flipped).unwrap();
        let (jobs, recovery) = open(folder.path());
        let found = ids(&jobs).await;
        assert!(recovery.unfinished >= found.len(), "flipped at {at}");
        if let Some(kept) = &recovery.damaged_file {
            rebuilt += 1;
            assert_eq!(fs_err::read(kept).unwrap(), flipped, "the damaged file is kept");
            if at < 100 {
                assert!(!found.is_empty(), "flipped at {at}: only the head is damaged");
            }
        } else {
            let lost = JOBS as usize - found.len();
            assert_eq!(lost, recovery.damaged, "flipped at {at}: what is lost is told");
        }
        insert(&jobs, JOBS + 1).await;
    }
    assert!(rebuilt > 0, "some of them are in what holds the file together");
}

#[tokio::test]
async fn what_is_no_database_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join(NAME), "something else".repeat(1000)).unwrap();
    let (jobs, recovery) = open(folder.path());
    let kept = recovery.damaged_file.unwrap();
    assert!(fs_err::read(kept).unwrap().starts_with(b"something else"));
    insert(&jobs, 1).await;
}

#[tokio::test]
async fn jobs_between_two_pages_that_cannot_be_read_are_taken_over() {
    const JOBS: u128 = 120;
    const PAGE: usize = 4096;
    const LEAF_OF_TABLE: u8 = 13;
    let folder = file_with_jobs(JOBS).await;
    let path = folder.path().join(NAME);
    let mut bytes = fs_err::read(&path).unwrap();
    let of_jobs = |page: &[u8]| page[0] == LEAF_OF_TABLE && page.windows(9).any(|text| text == b"red house");
    let pages = bytes.chunks_exact(PAGE).enumerate().skip(1);
    let leaves: Vec<usize> = pages
        .filter(|(_, page)| of_jobs(page))
        .map(|(at, _)| at)
        .collect();
    assert!(leaves.len() > 8, "{leaves:?}");
    let mut lost = 0;
    for part in [leaves.len() / 4, leaves.len() * 3 / 4] {
        let page = &mut bytes[leaves[part] * PAGE..][..PAGE];
        lost += usize::from(u16::from_be_bytes([page[3], page[4]]));
        page.fill(0xff);
    }
    fs_err::write(&path, &bytes).unwrap();
    let (jobs, recovery) = open(folder.path());
    assert!(recovery.damaged_file.is_some());
    assert_eq!(ids(&jobs).await.len(), JOBS as usize - lost);
}

#[tokio::test]
async fn a_rebuilding_that_was_ended_by_a_kill_is_finished() {
    let rebuilt = file_with_jobs(3).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |ending| folder.path().join(format!("{NAME}{ending}"));
    let (jobs, _) = open(folder.path());
    insert(&jobs, 9).await;
    let left = copy_of(folder.path());
    drop(jobs);
    for is_journal_gone in [false, true] {
        for entry in fs_err::read_dir(folder.path()).unwrap() {
            fs_err::remove_file(entry.unwrap().path()).unwrap();
        }
        fs_err::copy(left.path().join(NAME), path("")).unwrap();
        if !is_journal_gone {
            fs_err::copy(left.path().join(format!("{NAME}-wal")), path("-wal")).unwrap();
        }
        fs_err::copy(rebuilt.path().join(NAME), path(".whole")).unwrap();
        let (jobs, recovery) = open(folder.path());
        assert_eq!(ids(&jobs).await, [1, 2, 3]);
        assert_eq!(recovery.damaged_file, Some(path(".damaged")));
        assert!(!path(".whole").exists());
    }
}
