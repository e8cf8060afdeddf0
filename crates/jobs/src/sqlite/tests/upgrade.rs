//! Files of earlier versions, as they were written then (`crates/jobs/testdata`).

use pentimento_types::{JobOutcome, WebhookId};

use super::*;

#[tokio::test]
async fn a_file_of_version_1_becomes_ours_with_all_its_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let file = include_bytes!("../../../testdata/jobs-1.sqlite");
    fs_err::write(folder.path().join(NAME), file).unwrap();
    let (jobs, recovery) = open(folder.path());
    assert_eq!(
        recovery,
        Recovery {
            unfinished: 2,
            crashed: 1,
            ..Recovery::default()
        }
    );
    assert_eq!(ids(&jobs).await, [1, 2, 3, 4]);
    let done = jobs.get(JobId::from_u128(1)).await.unwrap().unwrap();
    assert!(matches!(done.outcome, Some(JobOutcome::Succeeded(images)) if images.len() == 1));
    assert_eq!((done.attempt, done.crashes), (1, 0));
    let crashed = jobs.get(JobId::from_u128(3)).await.unwrap().unwrap();
    assert_eq!((crashed.state, crashed.crashes), (JobState::Queued, 1));
    // What came later works with it.
    let mut job = sample_job(JobId::from_u128(5), SystemTime::UNIX_EPOCH);
    job.delivery.webhook = Some("https://a.example/".to_owned());
    let place = jobs.reserve(&job.owner).unwrap();
    jobs.insert(job, place).await.unwrap();
    jobs.transition(JobId::from_u128(5), Transition::Cancel)
        .await
        .unwrap();
    let webhook = jobs
        .take(Duration::from_secs(1), &SendingTurn::default())
        .await
        .unwrap();
    assert_eq!(webhook.id, WebhookId::of(JobId::from_u128(5)));
    drop(jobs);
    assert_eq!(open(folder.path()).1.unfinished, 2, "it is changed once");
}
