//! Reads the key file again and again, so that a key that is made or revoked counts at once and without a restart.
//!
//! On a thread of its own: a disk that does not answer holds up nobody, and the old keys go on.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use pentimento_types::describe_chain;

use crate::KeyRing;

/// Between two looks. The file is small, and lies in the memory of the system.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// Looks between two lines in the log about the same trouble.
const BETWEEN_COMPLAINTS: u32 = 300;

impl KeyRing {
    /// Starts a thread that follows the file until the ring is gone. Does nothing for a ring without a file.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn follow_file(self: &Arc<Self>) -> std::io::Result<()> {
        if self.file().is_none() {
            return Ok(());
        }
        let ring = Arc::downgrade(self);
        let thread = thread::Builder::new().name("pentimento-keys".to_owned());
        thread.spawn(move || follow(&ring)).map(drop)
    }
}

fn follow(ring: &Weak<KeyRing>) {
    let mut troubled_looks = 0;
    loop {
        thread::sleep(BETWEEN_LOOKS);
        let Some(ring) = ring.upgrade() else { return };
        match ring.refresh() {
            Ok(changed) => {
                if changed || troubled_looks > 0 {
                    tracing::info!(keys = ring.count(), "the keys were read");
                    for label in ring.doubled() {
                        tracing::error!(
                            label,
                            "a key of the key file does not count: the settings have one of this label; revoke one of them"
                        );
                    }
                }
                troubled_looks = 0;
            }
            Err(error) => {
                if troubled_looks % BETWEEN_COMPLAINTS == 0 {
                    tracing::error!(
                        error = describe_chain(&error),
                        "the keys cannot be read, so those known before go on"
                    );
                }
                troubled_looks = troubled_looks.wrapping_add(1);
            }
        }
    }
}
