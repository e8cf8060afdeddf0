//! Pictures in a bucket of S3, or of anything that speaks like it: MinIO, Ceph, R2.
//!
//! Every call is bounded: what the store answers with 429, 5xx or nothing at all is asked again a few times within seconds,
//! and a refusal (a wrong key, a wrong clock) is an error at once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use crate::StorageError;

/// For a whole call, with its body: the largest picture has some ten megabytes.
const CALL: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// After this time nothing is asked again.
const RETRIES_END: Duration = Duration::from_secs(20);
const RETRIES: usize = 5;

/// How callers get the pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum S3Links {
    /// From the bucket where it is one of AWS, and through this server where the bucket has an address of its own, which
    /// callers may not reach.
    #[default]
    Auto,
    /// From the bucket: a link of this server leads to a pre-signed address.
    Redirect,
    /// Through this server.
    Stream,
}

/// A bucket, and what is needed to get into it. `Debug` does not show the keys.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Config {
    bucket: String,
    /// Without slashes around it; empty for none.
    prefix: String,
    variables: Vec<(String, String)>,
    links: S3Links,
}

/// Why a place is no bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum S3PlaceError {
    /// It does not begin with `s3://`.
    #[error("is no place for pictures; write s3://bucket or s3://bucket/prefix")]
    NoBucket,
    /// Nobody's bucket has such a name.
    #[error(
        "has no name of a bucket behind s3://; one has 3 to 63 small letters, digits, hyphens and dots, and begins and ends with \
         a letter or a digit"
    )]
    BucketName,
    /// The pictures' names begin with the prefix.
    #[error("has a prefix that is no path of letters, digits, `-`, `_` and `.`")]
    Prefix,
}

impl FromStr for S3Config {
    type Err = S3PlaceError;

    /// `s3://bucket/prefix`
    fn from_str(place: &str) -> Result<Self, Self::Err> {
        let place = place.strip_prefix("s3://").ok_or(S3PlaceError::NoBucket)?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_bucket = (3..=63).contains(&bucket.len())
            && bucket.chars().all(|c| is_plain(c) || matches!(c, '-' | '.'))
            && bucket.starts_with(is_plain)
            && bucket.ends_with(is_plain);
        if !is_bucket {
            return Err(S3PlaceError::BucketName);
        }
        let prefix = prefix.trim_end_matches('/');
        let is_part = |part: &str| {
            !part.is_empty()
                && !part.bytes().all(|byte| byte == b'.')
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        if !prefix.is_empty() && !prefix.split('/').all(is_part) {
            return Err(S3PlaceError::Prefix);
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            variables: Vec::new(),
            links: S3Links::default(),
        })
    }
}

impl S3Config {
    /// With the variables that every client of AWS reads, `AWS_REGION` for example: keys, region, address. Others change
    /// nothing.
    #[must_use]
    pub fn with_variables(mut self, variables: Vec<(String, String)>) -> Self {
        self.variables = variables;
        self
    }

    /// With another way to the pictures.
    #[must_use]
    pub fn with_links(mut self, links: S3Links) -> Self {
        self.links = links;
        self
    }

    /// What all names in the bucket begin with; empty for nothing.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether callers are sent to the bucket.
    pub(crate) fn redirects(&self) -> bool {
        match self.links {
            S3Links::Auto => self.endpoint().is_none(),
            S3Links::Redirect => true,
            S3Links::Stream => false,
        }
    }

    /// The address of a store that is not AWS.
    fn endpoint(&self) -> Option<&str> {
        let named = |wanted: &str| {
            let mut variables = self.variables.iter();
            variables.find(|(name, value)| name == wanted && !value.is_empty())
        };
        let found = named("AWS_ENDPOINT_URL_S3").or_else(|| named("AWS_ENDPOINT_URL"));
        found
            .or_else(|| named("AWS_ENDPOINT"))
            .map(|(_, value)| value.as_str())
    }

    /// Asks nobody yet.
    ///
    /// # Errors
    /// [`StorageError::Store`] for variables that make no sense.
    pub(crate) fn open(&self) -> Result<Arc<AmazonS3>, StorageError> {
        let retry = RetryConfig {
            backoff: BackoffConfig {
                max_backoff: Duration::from_secs(5),
                ..BackoffConfig::default()
            },
            max_retries: RETRIES,
            retry_timeout: RETRIES_END,
        };
        let client = ClientOptions::new()
            .with_timeout(CALL)
            .with_connect_timeout(CONNECT);
        let mut builder = AmazonS3Builder::new()
            .with_retry(retry)
            .with_client_options(client)
            // One picture at a time is deleted, and every store can do that.
            .with_disable_bulk_delete(true);
        for (name, value) in self.variables.iter().filter(|(_, value)| !value.is_empty()) {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        // Whoever writes http:// means it.
        if self.endpoint().is_some_and(|url| url.starts_with("http://")) {
            builder = builder.with_allow_http(true);
        }
        let store = builder.with_bucket_name(&self.bucket).build();
        store.map(Arc::new).map_err(|source| StorageError::Store {
            act: "open",
            source: Box::new(source),
        })
    }
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("S3Config")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("variables", &names)
            .field("links", &self.links)
            .finish()
    }
}

impl fmt::Display for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_bucket_and_perhaps_a_prefix() {
        let read = |place: &str| {
            place
                .parse::<S3Config>()
                .map(|place| (place.bucket, place.prefix))
        };
        let place = |bucket: &str, prefix: &str| Ok((bucket.to_owned(), prefix.to_owned()));
        assert_eq!(read("s3://pictures"), place("pictures", ""));
        assert_eq!(read("s3://pictures/"), place("pictures", ""));
        assert_eq!(read("s3://my.bucket-1/a/b_c/"), place("my.bucket-1", "a/b_c"));
        for (wrong, why) in [
            ("pictures", S3PlaceError::NoBucket),
            ("https://pictures", S3PlaceError::NoBucket),
            ("s3://", S3PlaceError::BucketName),
            ("s3://ab", S3PlaceError::BucketName),
            ("s3://-ab", S3PlaceError::BucketName),
            ("s3://Pictures", S3PlaceError::BucketName),
            ("s3://user@pictures", S3PlaceError::BucketName),
            ("s3://pictures/a//b", S3PlaceError::Prefix),
            ("s3://pictures/../b", S3PlaceError::Prefix),
            ("s3://pictures/a b", S3PlaceError::Prefix),
            ("s3://pictures/a?b", S3PlaceError::Prefix),
        ] {
            assert_eq!(read(wrong), Err(why), "{wrong}");
        }
    }

    #[test]
    fn callers_are_sent_to_a_bucket_that_they_can_reach() {
        let bucket = || "s3://pictures".parse::<S3Config>().unwrap();
        let own = vec![("AWS_ENDPOINT_URL".to_owned(), "http://minio:9000".to_owned())];
        assert!(bucket().redirects());
        assert!(!bucket().with_variables(own.clone()).redirects());
        assert!(
            bucket()
                .with_variables(own)
                .with_links(S3Links::Redirect)
                .redirects()
        );
        assert!(!bucket().with_links(S3Links::Stream).redirects());
        let secret = vec![("AWS_SECRET_ACCESS_KEY".to_owned(), "hidden".to_owned())];
        assert!(!format!("{:?}", bucket().with_variables(secret)).contains("hidden"));
    }
}
