//! What may stand behind the `?` of a call about jobs. Other names are left alone, as everywhere.

use pentimento_types::{JobId, JobState};

use crate::admin::OwnError;

/// Jobs in one reply where nothing is said, and the most.
const USUAL_LIMIT: usize = 50;
const MOST: usize = 200;

/// All states with their names on the wire.
pub(super) const STATES: [(&str, JobState); 6] = [
    ("fetching", JobState::Fetching),
    ("queued", JobState::Queued),
    ("running", JobState::Running),
    ("succeeded", JobState::Succeeded),
    ("failed", JobState::Failed),
    ("cancelled", JobState::Cancelled),
];

/// Of `GET /v1/jobs`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    /// Empty is any.
    pub(super) states: Vec<JobState>,
    pub(super) after: Option<JobId>,
    pub(super) limit: usize,
}

impl ListQuery {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, OwnError> {
        let mut read = Self {
            states: Vec::new(),
            after: None,
            limit: USUAL_LIMIT,
        };
        for (name, value) in pairs(query) {
            match name.as_ref() {
                "state" => {
                    for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                        let state = state_named(word)?;
                        if !read.states.contains(&state) {
                            read.states.push(state);
                        }
                    }
                }
                "after" => {
                    let id = value.parse();
                    read.after = Some(
                        id.map_err(|_| refused("after", "must be the id of a job, as `next` gives it"))?,
                    );
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    read.limit =
                        limit.ok_or_else(|| refused("limit", format_args!("must be 1 to {MOST}")))?;
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

/// Of `DELETE /v1/jobs/{id}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DeleteQuery {
    /// Whether the job is to be deleted, and not only cancelled.
    pub(super) delete: bool,
}

impl DeleteQuery {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, OwnError> {
        Ok(Self {
            delete: flag(query, "delete")?.unwrap_or(false),
        })
    }
}

/// Of `GET /v1/jobs/{id}/events`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EventsQuery {
    /// Whether the images are to be shown while they are made.
    pub(super) previews: bool,
}

impl EventsQuery {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, OwnError> {
        Ok(Self {
            previews: flag(query, "previews")?.unwrap_or(true),
        })
    }
}

/// The name of a state on the wire.
pub(super) fn name_of(state: JobState) -> &'static str {
    let found = STATES.iter().find(|(_, other)| *other == state);
    found.map_or("unknown", |(name, _)| name)
}

fn state_named(word: &str) -> Result<JobState, OwnError> {
    let found = STATES.iter().find(|(name, _)| *name == word);
    found.map(|(_, state)| *state).ok_or_else(|| {
        let names: Vec<&str> = STATES.iter().map(|(name, _)| *name).collect();
        refused(
            "state",
            format_args!("must be of {}, with commas between them", names.join(", ")),
        )
    })
}

fn flag(query: Option<&str>, wanted: &'static str) -> Result<Option<bool>, OwnError> {
    let last = pairs(query).filter(|(name, _)| name == wanted).last();
    last.map(|(_, value)| match value.as_ref() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(refused(wanted, "must be true or false")),
    })
    .transpose()
}

fn pairs(query: Option<&str>) -> url::form_urlencoded::Parse<'_> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
}

fn refused(name: &'static str, problem: impl std::fmt::Display) -> OwnError {
    OwnError::Parameter {
        name,
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_and_what_cannot_be_is_refused_by_name() {
        let read = ListQuery::parse(Some("state=queued,running&state=queued&limit=7&other=x")).unwrap();
        assert_eq!(read.states, [JobState::Queued, JobState::Running]);
        assert_eq!((read.after, read.limit), (None, 7));
        assert_eq!(ListQuery::parse(None).unwrap().limit, USUAL_LIMIT);
        let after = ListQuery::parse(Some(&format!("after={}", JobId::from_u128(7)))).unwrap();
        assert_eq!(after.after, Some(JobId::from_u128(7)));
        for (query, name) in [
            ("state=done", "state"),
            ("after=x", "after"),
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=-1", "limit"),
            ("limit=many", "limit"),
        ] {
            let refused = ListQuery::parse(Some(query)).unwrap_err();
            assert!(refused.to_string().starts_with(name), "{query}: {refused}");
        }
        assert!(DeleteQuery::parse(Some("delete=true")).unwrap().delete);
        assert!(!DeleteQuery::parse(None).unwrap().delete);
        assert!(DeleteQuery::parse(Some("delete=yes")).is_err());
        assert!(EventsQuery::parse(Some("")).unwrap().previews);
        assert!(!EventsQuery::parse(Some("previews=0")).unwrap().previews);
    }
}
