//! What the device and the loads have done, as counters and histograms of the process.
//!
//! Each is an atomic number or a short array that exists from the start or from the first forward of its kind: a forward
//! allocates nothing for them. Labels are words of this file, never a caller's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use pentimento_catalog::BaseModel;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::model_memory::ModelMemory;
use crate::placement::Placement;
use crate::{BatchKey, GpuReport, LatentSize, ResolvedJob};

/// An act of a device.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Act {
    act: &'static str,
    device: u32,
}

/// One of the devices that this process computes on, by its place among them.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfDevice {
    device: u32,
}

/// What one forward ran on.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Forward {
    /// The family of the checkpoint.
    base: &'static str,
    /// The side of a square picture with at least so many pixels.
    size: &'static str,
}

/// How a load ended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LoadResult {
    result: &'static str,
}

/// The devices as they are when somebody looks. They are asked nothing for that.
pub(crate) struct DeviceCollector {
    pub(crate) models: Vec<Arc<dyn ModelMemory>>,
    pub(crate) placement: Arc<Placement>,
}

impl fmt::Debug for DeviceCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCollector")
            .field("placement", &self.placement)
            .finish_non_exhaustive()
    }
}

impl Collector for DeviceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gpus: Vec<Option<GpuReport>> = self.models.iter().map(|models| models.device().gpu).collect();
        let of_gpus = |value: fn(&GpuReport) -> u64| -> Vec<Option<u64>> {
            gpus.iter().map(|gpu| gpu.as_ref().map(value)).collect()
        };
        let jobs = self.placement.jobs();
        for (name, help, unit, values) in [
            (
                "device_jobs",
                "Jobs that were given to a device and have not ended",
                None,
                jobs.iter().map(|jobs| Some(*jobs as u64)).collect(),
            ),
            (
                "gpu_memory_used",
                "Memory of the GPU that this process uses",
                Some(Unit::Bytes),
                of_gpus(|gpu| gpu.used_bytes),
            ),
            (
                "gpu_memory_limit",
                "Memory of the GPU that this process may use",
                Some(Unit::Bytes),
                of_gpus(|gpu| gpu.budget_bytes),
            ),
            (
                "gpu_plans",
                "Plans of libraries that are kept, each for one layer, size and number of rows",
                None,
                of_gpus(|gpu| gpu.plans),
            ),
        ] {
            encode_each(&mut encoder, (name, help, unit.as_ref()), &values)?;
        }
        Ok(())
    }
}

/// What a device does.
const ACTS: [&str; 3] = ["prepare", "denoise", "finish"];

/// A gauge of those devices that have a value.
fn encode_each(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    values: &[Option<u64>],
) -> Result<(), fmt::Error> {
    if values.iter().all(Option::is_none) {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (device, value) in values.iter().enumerate() {
        let Some(value) = value else { continue };
        let labels = OfDevice {
            device: u32::try_from(device).unwrap_or(u32::MAX),
        };
        let gauge = ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
        gauge.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Of the device threads. Clones share the numbers.
#[derive(Clone, Debug)]
pub(crate) struct DeviceMetrics {
    /// Whose acts are counted here, by its place among the devices.
    device: u32,
    seconds: Family<Act, Counter<f64, AtomicU64>>,
    batch_rows: Histogram,
    mixed_set_forwards: Counter,
    evaluation_seconds: Family<Forward, Histogram, fn() -> Histogram>,
    encode_seconds: Histogram,
    decode_seconds: Histogram,
}

impl Default for DeviceMetrics {
    fn default() -> Self {
        Self {
            device: 0,
            seconds: Family::default(),
            batch_rows: Histogram::new(exponential_buckets(1.0, 2.0, 8)),
            mixed_set_forwards: Counter::default(),
            evaluation_seconds: Family::new_with_constructor(of_acts),
            encode_seconds: of_acts(),
            decode_seconds: of_acts(),
        }
    }
}

/// From a millisecond of a GPU to half a minute of a processor.
fn of_acts() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl DeviceMetrics {
    /// Of all acts of the first so many devices together.
    pub(crate) fn device_time(&self, devices: usize) -> Duration {
        let devices = 0..u32::try_from(devices).unwrap_or(u32::MAX);
        let acts = devices.flat_map(|device| ACTS.map(|act| Act { device, act }));
        Duration::from_secs_f64(acts.map(|act| self.seconds.get_or_create(&act).get()).sum())
    }

    /// The same numbers for the acts of another device. What it does is there from the start: what appears with its first event has
    /// no rise that an alert could see.
    pub(crate) fn of_device(&self, device: usize) -> Self {
        let metrics = Self {
            device: u32::try_from(device).unwrap_or(u32::MAX),
            ..self.clone()
        };
        for act in ACTS {
            metrics.worked(act, Duration::ZERO);
        }
        metrics
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "device",
            "Time that a device has worked, by what it did",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register(
            "batch_rows",
            "Rows of the UNet that shared a forward; a guided picture brings two",
            self.batch_rows.clone(),
        );
        registry.register(
            "mixed_set_forwards",
            "Forwards of the UNet whose pictures had different sets of LoRAs",
            self.mixed_set_forwards.clone(),
        );
        registry.register_with_unit(
            "evaluation",
            "Time of one forward of the UNet, by the family of the checkpoint and the size of the pictures",
            Unit::Seconds,
            self.evaluation_seconds.clone(),
        );
        registry.register_with_unit(
            "vae_encode",
            "Time of the device for encoding the picture of one job",
            Unit::Seconds,
            self.encode_seconds.clone(),
        );
        registry.register_with_unit(
            "vae_decode",
            "Time of the device for decoding one picture",
            Unit::Seconds,
            self.decode_seconds.clone(),
        );
    }

    pub(crate) fn prepared(&self, slice: Duration) {
        self.worked("prepare", slice);
    }

    /// All slices of the VAE for one job are done.
    pub(crate) fn encoded(&self, time: Duration) {
        self.encode_seconds.observe(time.as_secs_f64());
    }

    /// One forward of so many rows.
    pub(crate) fn evaluated(
        &self,
        key: &BatchKey,
        input: Option<&ResolvedJob>,
        (rows, time): (u32, Duration),
    ) {
        self.worked("denoise", time);
        self.batch_rows.observe(f64::from(rows));
        let forward = Forward {
            base: base_of(key, input),
            size: size_of(key.latent),
        };
        let seconds = self.evaluation_seconds.get_or_create(&forward);
        seconds.observe(time.as_secs_f64());
    }

    /// That forward was one of pictures with different sets of LoRAs.
    pub(crate) fn mixed_sets(&self) {
        self.mixed_set_forwards.inc();
    }

    pub(crate) fn finished(&self, slice: Duration) {
        self.worked("finish", slice);
    }

    /// All slices of one picture are done.
    pub(crate) fn decoded(&self, time: Duration) {
        self.decode_seconds.observe(time.as_secs_f64());
    }

    fn worked(&self, act: &'static str, time: Duration) {
        self.seconds
            .get_or_create(&Act {
                act,
                device: self.device,
            })
            .inc_by(time.as_secs_f64());
    }
}

fn base_of(key: &BatchKey, input: Option<&ResolvedJob>) -> &'static str {
    match input.and_then(|input| input.models.checkpoint.base) {
        Some(base) => base.as_str(),
        // Only the weights say it, and of them only this is seen from here.
        None if key.conditioning.pooled.is_some() => BaseModel::Sdxl.as_str(),
        None => "other",
    }
}

fn size_of(latent: LatentSize) -> &'static str {
    const CLASSES: &[(u64, &str)] = &[(256, "256"), (512, "512"), (768, "768"), (1024, "1024")];
    let pixels = latent.pixels() * u64::from(LatentSize::IMAGE_PIXELS).pow(2);
    let class = CLASSES.iter().find(|(side, _)| pixels <= side * side);
    class.map_or("larger", |(_, name)| name)
}

/// Of the loader. Clones share the numbers.
#[derive(Clone, Debug)]
pub(crate) struct LoaderMetrics {
    loads: Family<LoadResult, Counter>,
    load_seconds: Histogram,
    /// Components thrown out.
    pub(crate) evictions: Counter,
    /// Passes of an autoencoder that left the range of 16 bits.
    pub(crate) vae_overflows: Counter,
}

impl Default for LoaderMetrics {
    fn default() -> Self {
        Self {
            loads: Family::default(),
            load_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 15)),
            evictions: Counter::default(),
            vae_overflows: Counter::default(),
        }
    }
}

impl LoaderMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        for result in ["loaded", "failed", "refused"] {
            drop(self.loads.get_or_create(&LoadResult { result }));
        }
        registry.register(
            "model_loads",
            "Loads of models that were not in memory, by how they ended",
            self.loads.clone(),
        );
        registry.register_with_unit(
            "model_load",
            "Time of one load that has read weights",
            Unit::Seconds,
            self.load_seconds.clone(),
        );
        registry.register(
            "model_evictions",
            "Components of models that were thrown out of memory",
            self.evictions.clone(),
        );
        registry.register(
            "vae_overflows",
            "Passes of an autoencoder that left the range of f16 and were computed again in f32",
            self.vae_overflows.clone(),
        );
    }

    pub(crate) fn loaded(&self, time: Duration) {
        self.ended("loaded");
        self.load_seconds.observe(time.as_secs_f64());
    }

    /// The files cannot be used.
    pub(crate) fn failed(&self) {
        self.ended("failed");
    }

    /// Models in use leave no room.
    pub(crate) fn refused(&self) {
        self.ended("refused");
    }

    fn ended(&self, result: &'static str) {
        self.loads.get_or_create(&LoadResult { result }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_classes_and_not_numbers_of_callers() {
        let class = |width, height| size_of(LatentSize { height, width });
        assert_eq!(class(1, 1), "256");
        assert_eq!(class(64, 64), "512");
        assert_eq!(class(65, 64), "768");
        assert_eq!(class(32, 128), "512");
        assert_eq!(class(128, 128), "1024");
        assert_eq!(class(2048, 2048), "larger");
    }

    #[test]
    fn a_forward_leaves_its_numbers() {
        let metrics = DeviceMetrics::default().of_device(1);
        let key = BatchKey {
            model: crate::ModelKey::checkpoint("a model of a caller"),
            programs: crate::ProgramsId::default(),
            latent: LatentSize {
                height: 64,
                width: 64,
            },
            conditioning: crate::ConditioningShape::of_text(77),
        };
        metrics.evaluated(&key, None, (3, Duration::from_millis(250)));
        metrics.mixed_sets();
        let mut registry = Registry::with_prefix("pentimento");
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "pentimento_device_seconds_total{act=\"denoise\",device=\"1\"} 0.25",
            "pentimento_device_seconds_total{act=\"finish\",device=\"1\"} 0.0",
            "pentimento_batch_rows_sum 3.0",
            "pentimento_mixed_set_forwards_total 1",
            "pentimento_evaluation_seconds_count{base=\"other\",size=\"512\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("caller"), "{text}");
    }
}
