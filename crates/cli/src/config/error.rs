//! What can be wrong with the settings. Every text says where it stands and what to do; none repeats a secret.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Ends the program with exit code 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the settings file {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the settings file {} is not right, line {line}: {problem}", path.display())]
    File {
        path: PathBuf,
        line: usize,
        problem: String,
    },
    #[error("there is no setting {name}; the settings are {known}")]
    UnknownVariable { name: String, known: String },
    #[error("the variable {name} is not right: {problem}")]
    Variable { name: String, problem: String },
    #[error("the setting {name} is {value}; it must be {least} to {most}")]
    OutOfRange {
        name: &'static str,
        value: String,
        least: String,
        most: String,
    },
    #[error("the setting {name} is {value:?}, which {problem}")]
    Refused {
        name: &'static str,
        value: String,
        problem: &'static str,
    },
    #[error("the setting images is {place:?}, which {problem}")]
    Images {
        place: String,
        problem: pentimento_storage::S3PlaceError,
    },
    #[error("two keys have the label `{label}`; give each key a label of its own")]
    KeyLabelTwice { label: String },
    #[error(
        "the log filter `{filter}` is not right; write a level like `info` or a filter like `pentimento=debug`"
    )]
    LogFilter {
        filter: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "without keys the server listens on this machine only, and {listen} can be reached from others; \
         make a key with `pentimento keys new LABEL`, set one with PENTIMENTO_KEYS=label=secret, `keys = [\"label=secret\"]` in pentimento.toml or \
         --key label=secret, or listen on 127.0.0.1:{}",
        listen.port()
    )]
    Exposed { listen: SocketAddr },
    #[error(
        "without keys health checks are answered to this machine only, and {listen} can be reached from others; set a key, \
         or use --admin-listen 127.0.0.1:{} or --admin-listen none",
        listen.port()
    )]
    AdminExposed { listen: SocketAddr },
    #[error(
        "the device {device} cannot be used: {why}; --device auto computes on the processor where no GPU can be used"
    )]
    Device { device: String, why: String },
    #[error("this machine does not have the instruction set {isa}; it has {}", available.join(", "))]
    Isa {
        isa: &'static str,
        available: Vec<String>,
    },
    #[error("the variable HF_TOKEN_PATH names the file {}, which cannot be read", path.display())]
    TokenFile { path: PathBuf, source: std::io::Error },
    #[error("{problem}")]
    Arguments { problem: String },
}
