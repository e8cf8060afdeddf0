//! The writes of an [`crate::Outbox`].

use std::time::SystemTime;

use pentimento_types::WebhookId;

use super::memory::Memory;
use super::outbox_table as table;
use super::tables::TableError;
use super::writer::{Tables, Write};
use super::writes::Answer;
use crate::{JobsError, OutboxEntry, OutboxState, Settlement};

/// Tells what has become of a webhook.
fn tell(memory: &Memory, result: Result<OutboxEntry, JobsError>, answer: Answer<OutboxEntry>) {
    if let Ok(webhook) = &result {
        memory.mail.put(webhook.clone());
    }
    let _ = answer.send(result);
}

pub(super) struct Settle {
    id: WebhookId,
    sending: u32,
    settlement: Settlement,
    settled: Result<OutboxEntry, JobsError>,
    answer: Answer<OutboxEntry>,
}

impl Settle {
    pub(super) const fn new(
        id: WebhookId,
        sending: u32,
        settlement: Settlement,
        answer: Answer<OutboxEntry>,
    ) -> Self {
        Self {
            id,
            sending,
            settlement,
            settled: Err(JobsError::WebhookNotFound { id }),
            answer,
        }
    }
}

impl Write for Settle {
    fn what(&self) -> &'static str {
        "settle the webhook"
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError> {
        let id = self.id;
        let Some(stored) = table::find(tables.db, id)? else {
            self.settled = Err(JobsError::WebhookNotFound { id });
            return Ok(());
        };
        // The row knows what was settled or replayed before, also by a write beside this one.
        let is_latest = stored.state == OutboxState::Pending && stored.sendings < self.sending;
        let taken = tables.memory.mail.get(id).filter(|_| is_latest);
        let Some(mut webhook) = taken else {
            self.settled = Err(JobsError::SendingLost { id });
            return Ok(());
        };
        let settled = webhook.settle(self.sending, self.settlement.clone(), tables.now);
        if settled.is_ok() {
            table::write(tables.db, &webhook)?;
        }
        self.settled = settled.map(|()| webhook);
        Ok(())
    }

    fn publish(self: Box<Self>, memory: &Memory, written: Result<(), JobsError>) {
        tell(memory, written.and(self.settled), self.answer);
    }
}

pub(super) struct Replay {
    id: WebhookId,
    replayed: Result<OutboxEntry, JobsError>,
    answer: Answer<OutboxEntry>,
}

impl Replay {
    pub(super) const fn new(id: WebhookId, answer: Answer<OutboxEntry>) -> Self {
        Self {
            id,
            replayed: Err(JobsError::WebhookNotFound { id }),
            answer,
        }
    }
}

impl Write for Replay {
    fn what(&self) -> &'static str {
        "replay the webhook"
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError> {
        let id = self.id;
        // The one in memory knows of a sending that is under way.
        let known = match tables.memory.mail.get(id) {
            Some(webhook) => Some(webhook),
            None => table::find(tables.db, id)?,
        };
        let Some(mut webhook) = known else {
            self.replayed = Err(JobsError::WebhookNotFound { id });
            return Ok(());
        };
        webhook.replay(tables.now);
        table::write(tables.db, &webhook)?;
        self.replayed = Ok(webhook);
        Ok(())
    }

    fn publish(self: Box<Self>, memory: &Memory, written: Result<(), JobsError>) {
        tell(memory, written.and(self.replayed), self.answer);
    }
}

pub(super) struct GiveUp {
    round_began_before: SystemTime,
    problem: String,
    given_up: Vec<OutboxEntry>,
    answer: Answer<usize>,
}

impl GiveUp {
    pub(super) const fn new(round_began_before: SystemTime, problem: String, answer: Answer<usize>) -> Self {
        Self {
            round_began_before,
            problem,
            given_up: Vec::new(),
            answer,
        }
    }
}

impl Write for GiveUp {
    fn what(&self) -> &'static str {
        "give old webhooks up"
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), TableError> {
        self.given_up.clear();
        let pending = tables.memory.mail.all().into_iter();
        for mut webhook in pending.filter(|webhook| webhook.round_began < self.round_began_before) {
            let stored = table::find(tables.db, webhook.id)?;
            if stored.is_none_or(|stored| stored.state != OutboxState::Pending) {
                // Settled by a write beside this one.
                continue;
            }
            webhook.give_up(&self.problem, tables.now);
            table::write(tables.db, &webhook)?;
            self.given_up.push(webhook);
        }
        Ok(())
    }

    fn publish(self: Box<Self>, memory: &Memory, written: Result<(), JobsError>) {
        let Self { given_up, answer, .. } = *self;
        let result = written.map(|()| given_up.len());
        if result.is_ok() {
            for webhook in given_up {
                memory.mail.put(webhook);
            }
        }
        let _ = answer.send(result);
    }
}
