//! The one thread that writes. A commit takes milliseconds, most of them for the disk to say that it has everything; writes
//! that come meanwhile wait and share the next commit. Every commit waits for the disk, also one that nobody would miss after a
//! power cut: what is mended in a journal ([`super::journal`]) relies on it.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use rusqlite::{Connection, TransactionBehavior};

use super::memory::Memory;
use super::tables::{Ended, TableError};
use crate::JobsError;

/// Writes that share one commit.
const AT_ONCE: usize = 256;

/// What the statements of a write work on, inside a transaction.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    pub(super) db: &'a Connection,
    /// What is kept of ended jobs.
    pub(super) ended: Ended,
    pub(super) now: SystemTime,
    /// As it was before this transaction.
    pub(super) memory: &'a Memory,
}

/// One change of the records.
pub(super) trait Write: Send {
    /// Completes "could not …".
    fn what(&self) -> &'static str;

    /// Writes. May be called again, when a write that shared its transaction failed; on an error nothing stays.
    ///
    /// # Errors
    /// What keeps it from being written. A refusal is none: it is kept for the answer.
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError>;

    /// Tells everybody, once the change is durable or cannot be made.
    fn publish(self: Box<Self>, memory: &Memory, written: Result<(), JobsError>);
}

/// The door to the thread. Dropping it waits until everything is written and the database is closed.
#[derive(Debug)]
pub(super) struct Writer {
    /// None when it is closed.
    writes: Mutex<Option<Sender<Box<dyn Write>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(db: Connection, memory: Arc<Memory>, ended: Ended) -> std::io::Result<Self> {
        let (sender, writes) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("jobs".to_owned())
            .spawn(move || {
                let thread = Thread { db, memory, ended };
                thread.run(&writes);
            })?;
        Ok(Self {
            writes: Mutex::new(Some(sender)),
            thread: Some(thread),
        })
    }

    /// Hands a write over.
    ///
    /// # Errors
    /// [`JobsError::Backend`] when the thread has ended, which a panic in it brings about.
    pub(super) fn send(&self, write: Box<dyn Write>) -> Result<(), JobsError> {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let what = write.what();
        let sent = writes.as_ref().is_some_and(|writes| writes.send(write).is_ok());
        if sent { Ok(()) } else { Err(gone(what)) }
    }

    /// Whether writes are still taken.
    pub(super) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

/// The thread has ended.
pub(super) fn gone(what: &'static str) -> JobsError {
    JobsError::Backend {
        what,
        source: "the thread that writes the jobs has ended".into(),
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        *self.writes.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

struct Thread {
    db: Connection,
    memory: Arc<Memory>,
    ended: Ended,
}

impl Thread {
    fn run(mut self, writes: &Receiver<Box<dyn Write>>) {
        while let Ok(first) = writes.recv() {
            let mut batch = vec![first];
            batch.extend(writes.try_iter().take(AT_ONCE - 1));
            self.settle(batch);
        }
    }

    /// Writes a batch, and each of it by itself where one spoils it for the others.
    fn settle(&mut self, mut batch: Vec<Box<dyn Write>>) {
        match self.commit(&mut batch) {
            Ok(()) => {
                for write in batch {
                    write.publish(&self.memory, Ok(()));
                }
            }
            Err(_) if batch.len() > 1 => {
                for write in batch {
                    self.settle(vec![write]);
                }
            }
            Err(error) => {
                if let Some(write) = batch.pop() {
                    let (what, source) = (write.what(), Box::new(error));
                    write.publish(&self.memory, Err(JobsError::Backend { what, source }));
                }
            }
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Write>]) -> Result<(), TableError> {
        // Dropped without a commit, it takes everything back.
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut tables = Tables {
            db: &transaction,
            ended: self.ended,
            now: self.memory.clock.wall(),
            memory: &self.memory,
        };
        for write in batch {
            write.run(&mut tables)?;
        }
        let ended = tables.ended;
        transaction.commit()?;
        self.ended = ended;
        Ok(())
    }
}
