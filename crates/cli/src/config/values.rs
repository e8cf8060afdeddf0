//! The values of single settings: each reads itself from text, and a secret never shows itself.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use clap::ValueEnum;
use pentimento_service::{WebhookSecret, check_label};
use serde::Deserialize;

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Secret(String);

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("a key is not empty, and has no white space in it".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Secret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Secret {
    /// The text itself, for the one who compares it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A key of a caller: `label=secret`. The label stands in logs and jobs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct KeySetting {
    pub(crate) label: String,
    pub(crate) secret: Secret,
}

impl FromStr for KeySetting {
    type Err = String;

    // The text is never part of a message: it may be a secret that was written without its label.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (label, secret) = text
            .split_once('=')
            .ok_or("write a key as label=secret: a name for it, and what callers send")?;
        let (label, secret) = (label.trim(), secret.trim());
        check_label(label)?;
        if secret.is_empty() || secret.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!(
                "the secret of the key `{label}` is empty or has white space in it"
            ));
        }
        Ok(Self {
            label: label.to_owned(),
            secret: Secret(secret.to_owned()),
        })
    }
}

impl TryFrom<String> for KeySetting {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What webhooks are signed with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct WebhookSecretSetting(pub(crate) WebhookSecret);

impl FromStr for WebhookSecretSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl TryFrom<String> for WebhookSecretSetting {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A number of bytes: `268435456`, `256 MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenSize")]
pub(crate) struct ByteSize(pub(crate) u64);

/// As it may stand in a file: a number or a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenSize {
    Bytes(u64),
    Text(String),
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "kib" => Some(1 << 10),
            "mib" => Some(1 << 20),
            "gib" => Some(1 << 30),
            _ => None,
        };
        let number: Option<u64> = number.parse().ok();
        let bytes = number
            .zip(unit)
            .and_then(|(number, unit)| number.checked_mul(unit));
        bytes
            .map(Self)
            .ok_or_else(|| "write a number of bytes, such as 268435456, 256 MiB or 1 GiB".to_owned())
    }
}

impl TryFrom<WrittenSize> for ByteSize {
    type Error = String;

    fn try_from(written: WrittenSize) -> Result<Self, Self::Error> {
        match written {
            WrittenSize::Bytes(bytes) => Ok(Self(bytes)),
            WrittenSize::Text(text) => text.parse(),
        }
    }
}

/// Where health checks are answered besides the server's own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum AdminListen {
    /// Here.
    At(SocketAddr),
    /// Nowhere.
    None,
}

impl FromStr for AdminListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "none" => Ok(Self::None),
            address => address.parse().map(Self::At).map_err(|_| {
                "write an address and a port such as 127.0.0.1:8081 (port 0 takes a free one), or none"
                    .to_owned()
            }),
        }
    }
}

impl TryFrom<String> for AdminListen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What computes: `auto`, `cpu`, `cuda`, `cuda:1`, `cuda:0,1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum DeviceChoice {
    /// All CUDA devices that can be used, or the processor where none can.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// All CUDA devices that can be used; no start where none can.
    AllCuda,
    /// The CUDA devices with these numbers, each of which has to be usable.
    Cuda(Vec<usize>),
    /// Emulated devices of tests, each with the fault that it meets.
    Emulated(Vec<Option<String>>),
}

/// Devices that are named, at most.
const MOST_DEVICES: usize = 64;

/// Numbers of CUDA devices, as in `0,1`, none of them twice.
fn cuda_numbers(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for number in text.split(',') {
        let number: usize = number.trim().parse().ok()?;
        if number >= MOST_DEVICES || numbers.contains(&number) {
            return None;
        }
        numbers.push(number);
    }
    Some(numbers)
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().to_lowercase();
        let (name, more) = match text.split_once(':') {
            Some((name, more)) => (name, Some(more)),
            None => (text.as_str(), None),
        };
        match (name, more) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", None) => Ok(Self::AllCuda),
            ("cuda", Some(numbers)) => cuda_numbers(numbers).map(Self::Cuda).ok_or_else(|| {
                "CUDA devices have numbers from 0 to 63, each named once, as in cuda:0 or cuda:0,1".to_owned()
            }),
            // Not named in messages: it is for tests, and the builds of others have none. `none` is a device without a fault.
            ("emulated", None) => Ok(Self::Emulated(vec![None])),
            ("emulated", Some(faults)) => {
                let faults = faults.split(',').take(MOST_DEVICES);
                let faults = faults.map(|fault| (fault != "none").then(|| fault.to_owned()));
                Ok(Self::Emulated(faults.collect()))
            }
            _ => Err(
                "it must be one of auto, cpu, cuda for all CUDA devices, or cuda:N for those with the numbers N, as in cuda:0,1"
                    .to_owned(),
            ),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The numbers in which networks compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PrecisionChoice {
    /// 32 bits: the same picture on every device, within a rounding that nobody sees
    F32,
    /// 16 bits, with sums in 32: on a GPU only, several times faster
    F16,
    /// 16 bits in the large products, with sums in 32: on a processor only that has instructions for it
    Bf16,
}

/// How much of a GPU's memory may be used: `20 GiB`, or `50%` of what is free at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenSize")]
pub(crate) enum GpuMemory {
    Bytes(ByteSize),
    Percent(u8),
}

impl FromStr for GpuMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(share) = text.trim().strip_suffix('%') else {
            return text.parse().map(Self::Bytes);
        };
        match share.trim().parse() {
            Ok(percent) if (1..=100).contains(&percent) => Ok(Self::Percent(percent)),
            _ => Err("a share of the memory is 1% to 100%".to_owned()),
        }
    }
}

impl TryFrom<WrittenSize> for GpuMemory {
    type Error = String;

    fn try_from(size: WrittenSize) -> Result<Self, Self::Error> {
        match size {
            WrittenSize::Bytes(bytes) => Ok(Self::Bytes(ByteSize(bytes))),
            WrittenSize::Text(text) => text.parse(),
        }
    }
}

/// The instruction set of the kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IsaChoice {
    /// The best that the machine has
    #[default]
    Auto,
    /// No extension of the processor's basic set
    Portable,
    /// x86-64 with AVX2, FMA and F16C
    Avx2,
    /// x86-64 with AVX-512
    Avx512,
    /// x86-64 with AVX-512 and its instruction for bfloat16, for --precision bf16; f32 has the bits of avx512
    #[value(name = "avx512-bf16")]
    #[serde(rename = "avx512-bf16")]
    Avx512Bf16,
    /// x86-64 with AMX for bfloat16, of which products of f32 are made as well
    Amx,
    /// The numbers of avx512-bf16, slowly, on any machine
    #[value(name = "avx512-bf16-emulated", hide = true)]
    #[serde(rename = "avx512-bf16-emulated")]
    Avx512Bf16Emulated,
    /// The numbers of amx, slowly, on any machine
    #[value(name = "amx-emulated", hide = true)]
    #[serde(rename = "amx-emulated")]
    AmxEmulated,
    /// 64-bit ARM
    Neon,
}

impl IsaChoice {
    /// The kernels' name of it; None is their own choice.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::Portable => Some("portable"),
            Self::Avx2 => Some("avx2"),
            Self::Avx512 => Some("avx512"),
            Self::Avx512Bf16 => Some("avx512-bf16"),
            Self::Amx => Some("amx"),
            Self::Avx512Bf16Emulated => Some("avx512-bf16-emulated"),
            Self::AmxEmulated => Some("amx-emulated"),
            Self::Neon => Some("neon"),
        }
    }
}

/// How callers get pictures that are in a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImagesLinks {
    /// From the bucket where it is one of AWS, else through the server
    #[default]
    Auto,
    /// From the bucket
    Redirect,
    /// Through the server
    Stream,
}

/// Who decides whether finished pictures are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SafetyChoice {
    /// Each request
    #[default]
    Auto,
    /// The server: all are looked at, and no unsafe one is handed out
    Required,
    /// The server: none is looked at
    Off,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON document a line
    Json,
}

/// Which rules of marking pictures are followed beyond the marks of their files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compliance {
    /// None
    #[default]
    None,
    /// Also a watermark in the pixels, for the European Union's AI Act
    Eu,
}

impl Compliance {
    /// Whether pixels are changed.
    pub(crate) const fn wants_watermark(self) -> bool {
        matches!(self, Self::Eu)
    }
}
