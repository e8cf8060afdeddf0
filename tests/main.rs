//! Black-box tests: the real binary in a process of its own, spoken to over HTTP as a client would.
//!
//! One program for all of them, because linking costs more than running.

#[cfg(test)]
mod a1111;
#[cfg(test)]
mod abuse;
#[cfg(test)]
mod auth;
#[cfg(test)]
mod batching;
#[cfg(test)]
mod beside;
#[cfg(test)]
#[cfg(unix)]
mod chaos;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod clients;
#[cfg(test)]
#[cfg(unix)]
mod cluster;
#[cfg(test)]
#[cfg(unix)]
mod cluster_chaos;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod cluster_network;
#[cfg(test)]
#[cfg(unix)]
mod cluster_upgrade;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod doors;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod full_disk;
#[cfg(test)]
mod gpu;
#[cfg(test)]
mod hub;
#[cfg(test)]
mod idempotency;
#[cfg(test)]
mod images_s3;
#[cfg(test)]
mod ip_adapter;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod links;
#[cfg(test)]
mod lora;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod memory;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod modelslab;
#[cfg(test)]
mod novita;
#[cfg(test)]
mod openai;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod operating;
#[cfg(test)]
mod playground;
#[cfg(test)]
mod precision;
#[cfg(test)]
#[cfg(unix)]
mod restarts;
#[cfg(test)]
mod safety;
#[cfg(test)]
#[cfg(feature = "c2pa")]
mod signing;
#[cfg(test)]
mod support;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod weights;
