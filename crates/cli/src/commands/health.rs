//! `pentimento health`: whether the server of these settings answers, for container engines and scripts.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::admin_server;
use crate::config::Config;
use crate::reachable::reachable;

/// For each of two addresses. Our container waits for five seconds in all, and a healthy server answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks `/readyz` of the server on this machine: first at the address for health checks, which callers cannot fill, and where
/// no good answer comes from there, because the server had to go on without it say, at that of the callers.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    let admin = admin_server::address(&config.http).filter(|address| address.port() != 0);
    ask_both(admin, config.http.listen).await
}

async fn ask_both(admin: Option<SocketAddr>, listen: SocketAddr) -> anyhow::Result<()> {
    if let Some(address) = admin
        && ask(reachable(address)).await.is_ok()
    {
        return Ok(());
    }
    ask(reachable(listen)).await
}

async fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let reply = client.get(format!("http://{address}/readyz")).send().await;
    let reply = reply.with_context(|| format!("no server answers at {address}"))?;
    let status = reply.status();
    ensure!(status.is_success(), "the server at {address} answers {status}");
    // The port after ours may be another program's.
    let body = reply.bytes().await.unwrap_or_default();
    let is_ours =
        serde_json::from_slice(&body).is_ok_and(|body: Value| body.get("ready") == Some(&Value::Bool(true)));
    ensure!(is_ours, "what answers at {address} is another program");
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Gives everybody this reply.
    async fn answers(reply: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                let _ = caller.read(&mut [0; 4096]).await;
                let _ = caller.write_all(reply.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn who_is_full_of_callers_is_healthy_and_another_program_is_not() {
        const READY: &str =
            "HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{\"ready\":true}";
        const FULL: &str =
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        const OTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        // As the program's `main` does.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let [ready, full, other] = [answers(READY).await, answers(FULL).await, answers(OTHER).await];
        for (admin, listen, healthy) in [
            (Some(ready), full, true),
            (Some(full), ready, true),
            (Some(other), ready, true),
            (Some(other), full, false),
            (Some(full), other, false),
            (None, ready, true),
            (None, full, false),
        ] {
            assert_eq!(
                ask_both(admin, listen).await.is_ok(),
                healthy,
                "{admin:?} {listen}"
            );
        }
    }
}
