//! The power fails while the last commit is written: whatever part of it reached the disk, what was acknowledged is there.

use rusqlite::config::DbConfig;

use super::writer::Tables;
use super::*;

/// What SQLite writes for one page: its bytes, and before them a head with checksums.
const FRAME: usize = 24 + 4096;

/// The files after three acknowledged jobs, and with a fourth in the journal.
struct Files {
    database: Vec<u8>,
    /// With four.
    journal: Vec<u8>,
    /// Of the journal with three.
    acknowledged: usize,
    folder: TempDir,
}

impl Files {
    async fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, _) = open(folder.path());
        for id in 1..=3 {
            insert(&jobs, id).await;
        }
        let journal = || fs_err::read(folder.path().join(format!("{NAME}-wal"))).unwrap();
        let acknowledged = journal().len();
        insert(&jobs, 4).await;
        let database = fs_err::read(folder.path().join(NAME)).unwrap();
        Self {
            database,
            journal: journal(),
            acknowledged,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The jobs that a start finds, and how many records were damaged, when the journal is this one.
    fn found(&self, journal: &[u8]) -> (Vec<u128>, usize) {
        let path = self.folder.path().join(NAME);
        let beside = |ending| self.folder.path().join(format!("{NAME}{ending}"));
        let _ = fs_err::remove_file(beside("-shm"));
        fs_err::write(&path, &self.database).unwrap();
        fs_err::write(beside("-wal"), journal).unwrap();
        let mut db = schema::open(&path).unwrap();
        // The disk need not be waited for thousands of times.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .unwrap();
        assert!(!schema::is_damaged(&db));
        let recovered = recovery::recover(&mut db, SystemTime::UNIX_EPOCH).unwrap();
        let jobs = recovered.unfinished.iter();
        let ids = jobs.map(|job| job.id.as_uuid().as_u128()).collect();
        (ids, recovered.recovery.damaged)
    }
}

#[tokio::test]
async fn a_journal_that_was_cut_at_any_byte_of_its_last_page_loses_no_acknowledged_job() {
    let files = Files::make().await;
    let whole = files.journal.len();
    assert!(whole >= files.acknowledged + FRAME);
    assert_eq!(files.found(&files.journal), (vec![1, 2, 3, 4], 0));
    for cut in whole - FRAME..whole {
        assert_eq!(
            files.found(&files.journal[..cut]),
            (vec![1, 2, 3], 0),
            "cut at {cut}"
        );
    }
    // And in the pages before, all of which belong to the commit that was not acknowledged.
    for cut in (files.acknowledged..whole - FRAME).step_by(97) {
        assert_eq!(
            files.found(&files.journal[..cut]),
            (vec![1, 2, 3], 0),
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn a_bit_that_flipped_before_the_last_commit_costs_the_record_that_it_is_in_at_most() {
    let files = Files::make().await;
    let folder = tempfile::tempdir().unwrap();
    let mut lost_before = 0;
    for at in (12..32).chain((32..files.acknowledged).step_by(211)) {
        let mut journal = files.journal.clone();
        journal[at] ^= 1 << (at % 8);
        fs_err::write(folder.path().join(NAME), &files.database).unwrap();
        let wal = folder.path().join(format!("{NAME}-wal"));
        fs_err::write(&wal, &journal).unwrap();
        let (jobs, recovery) = open(folder.path());
        let found = ids(&jobs).await;
        assert!(recovery.mended_pages > 0, "flipped at {at}");
        assert_eq!(
            fs_err::read(folder.path().join(format!("{NAME}-wal.damaged"))).unwrap(),
            journal
        );
        if recovery.damaged_file.is_none() {
            assert!(found.len() + recovery.damaged >= 4, "flipped at {at}: {found:?}");
        }
        lost_before += usize::from(files.found(&journal).0.len() < 4);
        drop(jobs);
    }
    assert!(lost_before > 0, "SQLite alone forgets what follows");
}

#[tokio::test]
async fn a_last_page_with_a_flipped_bit_loses_no_acknowledged_job() {
    let mut files = Files::make().await;
    let whole = files.journal.len();
    for at in (whole - FRAME..whole).step_by(5) {
        files.journal[at] ^= 1 << (at % 8);
        let (jobs, damaged) = files.found(&files.journal);
        assert_eq!(jobs[..3], [1, 2, 3], "flipped at {at}");
        assert!(jobs.len() + damaged <= 4);
        files.journal[at] ^= 1 << (at % 8);
    }
}

#[tokio::test]
async fn every_commit_waits_for_the_disk() {
    struct Probe(oneshot::Sender<i64>, i64);
    impl Write for Probe {
        fn what(&self) -> &'static str {
            "look"
        }
        fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError> {
            self.1 = tables
                .db
                .pragma_query_value(None, "synchronous", |row| row.get(0))?;
            Ok(())
        }
        fn publish(self: Box<Self>, _: &Memory, _: Result<(), JobsError>) {
            let _ = self.0.send(self.1);
        }
    }
    const FULL: i64 = 2;
    let folder = tempfile::tempdir().unwrap();
    let (jobs, _) = open(folder.path());
    let id = insert(&jobs, 1).await;
    jobs.transition(id, Transition::Start { attempt: 0 })
        .await
        .unwrap();
    let (answer, found) = oneshot::channel();
    jobs.file.writer.send(Box::new(Probe(answer, 0))).unwrap();
    assert_eq!(found.await.unwrap(), FULL);
}

#[tokio::test]
async fn pages_of_an_earlier_journal_in_a_commit_that_was_cut_are_not_taken_for_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (jobs, _) = open(folder.path());
    let wal = folder.path().join(format!("{NAME}-wal"));
    for id in 1..=12 {
        insert(&jobs, id).await;
    }
    let earlier = fs_err::read(&wal).unwrap();
    // The journal begins again at its first byte with the next commit.
    let tool = Connection::open(folder.path().join(NAME)).unwrap();
    let busy: i64 = tool
        .query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(busy, 0);
    insert(&jobs, 13).await;
    let acknowledged = ends_of_commits(&fs_err::read(&wal).unwrap(), &earlier);
    // One commit of many pages.
    tool.execute_batch("CREATE TABLE scratch AS SELECT zeroblob(80000)")
        .unwrap();
    let journal = fs_err::read(&wal).unwrap();
    let last = *ends_of_commits(&journal, &earlier).last().unwrap();
    let first = *acknowledged.last().unwrap() + 1;
    assert!(last > first + 3, "{first} to {last}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut ended = 0;
    for stale in first..last - 1 {
        let at = 32 + stale * FRAME;
        let Some(old) = earlier.get(at..at + FRAME) else {
            break;
        };
        ended += usize::from(old[4..8] != [0; 4]);
        let mut cut = journal.clone();
        cut[at..at + FRAME].copy_from_slice(old);
        fs_err::write(&path, &cut).unwrap();
        assert_eq!(journal::mend(&path).unwrap(), 0, "page {stale}");
        assert!(fs_err::read(&path).unwrap() == cut, "page {stale}: as it was");
    }
    assert!(ended > 0, "some of them ended a commit of the earlier journal");
}

/// The pages of a journal that end its commits, without what an earlier one has left.
fn ends_of_commits(journal: &[u8], earlier: &[u8]) -> Vec<usize> {
    assert!(journal[16..24] != earlier[16..24], "it is another journal");
    let pages = journal[32..].chunks_exact(FRAME).enumerate();
    let ours = pages.take_while(|(_, page)| page[8..16] == journal[16..24]);
    ours.filter(|(_, page)| page[4..8] != [0; 4])
        .map(|(at, _)| at)
        .collect()
}
