//! What a server does that has nothing to do: it gives memory back.

use std::time::Duration;

use pentimento_service::Service;

use crate::purge;

/// Between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);
/// After so many looks without a job the server idles. One that is busy every few seconds keeps its buffers.
const LOOKS_WITHOUT_A_JOB: u32 = 3;

/// Looks until it is dropped.
pub(crate) async fn give_memory_back(service: Service) {
    let mut looks = 0;
    loop {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let status = service.status().await;
        let jobs = status.jobs.queued + status.jobs.running + status.engine.jobs;
        looks = if jobs == 0 { looks + 1 } else { 0 };
        // What calls have left that made no job goes with the next round.
        if looks > 0 && looks % LOOKS_WITHOUT_A_JOB == 0 {
            // It may take a while, in the kernel. A panic of it would be logged, and nothing else.
            let _ = tokio::task::spawn_blocking(purge::give_back).await;
        }
    }
}
