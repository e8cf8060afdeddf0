//! The real binary among the careless, the hostile and the unlucky. All of it together takes less than three minutes.

mod fairness;
#[cfg(unix)]
mod files;
mod floods;
mod hold;
mod log;
mod pages;
#[cfg(target_os = "linux")]
mod peaks;
mod settings;
