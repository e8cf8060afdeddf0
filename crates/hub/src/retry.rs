//! Short questions to a server, asked again when it is busy or the connection breaks.

use std::time::Duration;

use crate::HubError;
use crate::client::{Again, Failed};

const MOST_TRIES: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub(crate) async fn again_and_again<T, F>(pause: Duration, ask: impl Fn() -> F) -> Result<T, HubError>
where
    F: Future<Output = Result<T, Failed>>,
{
    let mut tries = 0;
    loop {
        // Large, and it would be carried through every future around it.
        let Failed { error, again } = match Box::pin(ask()).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        tries += 1;
        let wait = match again {
            Again::Never => return Err(error),
            Again::Soon => pause.saturating_mul(1 << (tries - 1)),
            Again::After(time) => time,
        };
        if tries >= MOST_TRIES {
            return Err(error);
        }
        tokio::time::sleep(wait.min(LONGEST_PAUSE)).await;
    }
}
