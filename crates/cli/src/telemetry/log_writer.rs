//! Lines on their way to the standard error, which may be closed, full, or a pipe that nobody empties.
//!
//! Invariant: whoever logs never waits for the standard error and never fails because of it. Lines wait in a queue of
//! bounded bytes for one thread that writes them; what does not fit, and what cannot be written, is lost and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// What may wait. Some ten thousand lines.
const ROOM: usize = 2 << 20;
/// What a line takes beside its bytes, about.
const LINE_OVERHEAD: usize = 64;
/// How long the end of the program waits for the next line to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way in. Clones share the queue.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    room: usize,
    waiting: Mutex<Waiting>,
    /// A line has come, or the last one has been written.
    changed: Condvar,
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether the thread has a line in its hands.
    writing: bool,
    /// How many lines the thread has taken since the start.
    taken: u64,
}

impl LogWriter {
    /// Starts the thread that writes to `target`. `resumed` is called with the number of lost lines when the first line
    /// after them has been written; it may log.
    pub(crate) fn start(
        target: impl Write + Send + 'static,
        resumed: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        Self::with_room(ROOM, target, resumed)
    }

    fn with_room(
        room: usize,
        target: impl Write + Send + 'static,
        resumed: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            room,
            waiting: Mutex::default(),
            changed: Condvar::new(),
            lost: Arc::default(),
        });
        let shared = Arc::clone(&queue);
        std::thread::Builder::new()
            .name("pentimento-log".to_owned())
            .spawn(move || shared.write_to(target, resumed))?;
        Ok(Self { queue })
    }

    /// How many lines are lost so far.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.queue.lost)
    }

    /// Puts a line behind the others, or loses it.
    pub(crate) fn push(&self, line: &[u8]) {
        let queue = &self.queue;
        let mut waiting = queue.lock();
        if waiting.bytes + line.len() + LINE_OVERHEAD > queue.room {
            drop(waiting);
            queue.lose();
            return;
        }
        waiting.bytes += line.len() + LINE_OVERHEAD;
        waiting.lines.push_back(line.to_vec());
        drop(waiting);
        queue.changed.notify_all();
    }

    /// Waits until everything is written, as long as something is being written at all.
    pub(crate) fn flush(&self) {
        let queue = &self.queue;
        let mut waiting = queue.lock();
        while !waiting.lines.is_empty() || waiting.writing {
            let before = waiting.taken;
            let (now, time) = queue
                .changed
                .wait_timeout(waiting, PATIENCE)
                .unwrap_or_else(PoisonError::into_inner);
            waiting = now;
            if time.timed_out() && waiting.taken == before {
                return;
            }
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self) {
        // Guards no other memory.
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// The thread. It ends with the process.
    fn write_to(&self, mut target: impl Write, resumed: impl Fn(u64)) {
        let mut told = 0;
        loop {
            let line = self.next();
            if target.write_all(&line).and_then(|()| target.flush()).is_err() {
                self.lose();
            } else {
                let lost = self.lost.load(Ordering::Relaxed);
                if lost > told {
                    resumed(lost - told);
                    told = lost;
                }
            }
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut waiting = self.lock();
        waiting.writing = false;
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len() + LINE_OVERHEAD;
                waiting.writing = true;
                waiting.taken += 1;
                return line;
            }
            self.changed.notify_all();
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Every call has a whole line: the log formats an event first and writes it then.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for LogWriter {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes a line when the test says so, and fails it when the test says that.
    struct Target {
        permits: mpsc::Receiver<bool>,
        lines: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Target {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            match self.permits.recv() {
                Ok(true) => {
                    let _ = self.lines.send(line.to_vec());
                    Ok(line.len())
                }
                _ => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Ends = (
        LogWriter,
        mpsc::Sender<bool>,
        mpsc::Receiver<Vec<u8>>,
        mpsc::Receiver<u64>,
    );

    fn writer(room: usize) -> Ends {
        let (permit, permits) = mpsc::channel();
        let (lines, written) = mpsc::channel();
        let (resumed, told) = mpsc::channel();
        let target = Target { permits, lines };
        let writer = LogWriter::with_room(room, target, move |lost| {
            let _ = resumed.send(lost);
        });
        (writer.unwrap(), permit, written, told)
    }

    #[test]
    fn a_target_that_blocks_costs_lines_and_no_time() {
        let (writer, permit, written, told) = writer(10 * (LINE_OVERHEAD + 10));
        for at in 0..1000 {
            writer.push(format!("line {at:04}\n").as_bytes());
        }
        let lost = writer.lost().load(Ordering::Relaxed);
        // Ten wait, and the thread may have one in its hands.
        assert!((989..=990).contains(&lost), "{lost}");
        let kept = 1000 - usize::try_from(lost).unwrap();
        for _ in 0..kept {
            permit.send(true).unwrap();
        }
        assert_eq!(told.recv().unwrap(), lost, "it is said when it flows again");
        writer.flush();
        let written: Vec<_> = written.try_iter().collect();
        assert_eq!(written.len(), kept);
        assert_eq!(written[0], b"line 0000\n");
        assert_eq!(
            writer.lost().load(Ordering::Relaxed),
            lost,
            "and no more are lost"
        );
    }

    #[test]
    fn a_target_that_fails_is_tried_again_with_every_line() {
        let (writer, permit, written, told) = writer(ROOM);
        for works in [false, false, true] {
            permit.send(works).unwrap();
            writer.push(b"x\n");
        }
        assert_eq!(told.recv().unwrap(), 2);
        writer.flush();
        assert_eq!(written.try_iter().count(), 1);
    }

    #[test]
    fn the_end_waits_for_what_flows_and_not_for_what_does_not() {
        let (writer, permit, written, _told) = writer(ROOM);
        writer.push(b"a\n");
        // Nobody takes it: this returns all the same.
        writer.flush();
        assert_eq!(written.try_iter().count(), 0);
        permit.send(true).unwrap();
        writer.flush();
        assert_eq!(written.try_iter().count(), 1);
    }
}
