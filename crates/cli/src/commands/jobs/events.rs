//! Server-sent events, taken apart as the HTML standard says in section 9.2.6.

use anyhow::ensure;

/// No event of a server of ours comes near it.
const LONGEST: usize = 16 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: String,
    /// What to come back with when the connection breaks after it.
    pub(super) id: Option<String>,
}

/// Takes bytes in as they arrive.
#[derive(Debug, Default)]
pub(super) struct Reader {
    rest: Vec<u8>,
    event: Event,
    data: Vec<String>,
    bytes: usize,
}

impl Reader {
    /// The events that end within these bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line)
                .trim_end_matches(['\r', '\n'])
                .to_owned();
            events.extend(self.line(&line));
        }
        ensure!(
            self.rest.len() + self.bytes <= LONGEST,
            "the server sends an event without an end"
        );
        Ok(events)
    }

    /// An empty line ends an event; one without data is none.
    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            let data = std::mem::take(&mut self.data);
            self.bytes = 0;
            return (!data.is_empty()).then(|| Event {
                data: data.join("\n"),
                ..event
            });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        self.bytes += value.len();
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => self.data.push(value.to_owned()),
            "id" => self.event.id = Some(value.to_owned()),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_bytes_are_cut() {
        let text = "retry: 2000\n\n: still here\n\nid: 2.0.0\r\nevent: state\r\ndata: {\ndata:  }\n\nevent: end\ndata: 1\nid: end\n\nevent: cut";
        for step in [1, 2, 7, text.len()] {
            let mut reader = Reader::default();
            let mut events = Vec::new();
            for piece in text.as_bytes().chunks(step) {
                events.extend(reader.take(piece).unwrap());
            }
            let event = |name: &str, data: &str, id: &str| Event {
                name: name.to_owned(),
                data: data.to_owned(),
                id: Some(id.to_owned()),
            };
            assert_eq!(
                events,
                [event("state", "{\n }", "2.0.0"), event("end", "1", "end")]
            );
        }
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        let mut reader = Reader::default();
        let piece = vec![b'x'; 1 << 20];
        let given_up = (0..20).find_map(|_| reader.take(&piece).err());
        assert!(given_up.is_some());
    }
}
