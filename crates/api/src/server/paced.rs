//! A socket whose other end has to keep up: the head of a call within its time, replies at a least speed.
//!
//! Invariant: nothing here is counted while a handler works, so a caller may wait for its pictures as long as it likes.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::seats::Connection;
use crate::config::LeastSpeed;

/// The socket of one connection.
#[derive(Debug)]
pub(super) struct Paced {
    stream: TcpStream,
    connection: Arc<Connection>,
    header_timeout: Duration,
    /// When the head that has begun must be there, and how many calls there were before it.
    head: Option<(u32, Pin<Box<Sleep>>)>,
    writing: Writing,
}

/// A leaking bucket: time in which the other end takes nothing flows in, and what it takes flows out at the least speed.
#[derive(Debug)]
struct Writing {
    least: LeastSpeed,
    owed: Duration,
    blocked_since: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl Paced {
    pub(super) fn new(
        stream: TcpStream,
        connection: Arc<Connection>,
        header_timeout: Duration,
        least: LeastSpeed,
    ) -> Self {
        Self {
            stream,
            connection,
            header_timeout,
            head: None,
            writing: Writing {
                least,
                owed: Duration::ZERO,
                blocked_since: None,
                alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            },
        }
    }

    /// Runs while bytes of a head are there and no call has begun.
    fn check_head(&mut self, arrived: bool, context: &mut Context<'_>) -> Poll<io::Error> {
        let Some(calls) = self.connection.between_calls() else {
            self.head = None;
            return Poll::Pending;
        };
        if self.head.as_ref().is_some_and(|(before, _)| *before != calls) {
            self.head = None;
        }
        if arrived && self.head.is_none() {
            self.head = Some((calls, Box::pin(tokio::time::sleep(self.header_timeout))));
        }
        let Some((_, alarm)) = &mut self.head else {
            return Poll::Pending;
        };
        alarm
            .as_mut()
            .poll(context)
            .map(|()| io::Error::new(io::ErrorKind::TimedOut, "the head of a call took too long"))
    }

    fn check_write(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let writing = &mut self.writing;
        if let Poll::Ready(written) = written {
            if let Some(since) = writing.blocked_since.take() {
                writing.owed += since.elapsed();
            }
            if let Ok(bytes) = written {
                writing.owed = writing.owed.saturating_sub(writing.least.time_earned(bytes));
                self.connection.touch();
            }
            return Poll::Ready(written);
        }
        let since = *writing.blocked_since.get_or_insert_with(Instant::now);
        let due = since + writing.least.grace.saturating_sub(writing.owed);
        if writing.alarm.deadline() != due {
            writing.alarm.as_mut().reset(due);
        }
        ready!(writing.alarm.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the reply is not read",
        )))
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let arrived = buffer.filled().len() > before;
        match read {
            Poll::Ready(Ok(())) if !arrived => read,
            Poll::Ready(Err(_)) => read,
            Poll::Ready(Ok(())) | Poll::Pending => match self.check_head(arrived, context) {
                Poll::Ready(late) => Poll::Ready(Err(late)),
                Poll::Pending => read,
            },
        }
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check_write(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.check_write(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper comes here when it has nothing left to write.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            self.connection.sent();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
