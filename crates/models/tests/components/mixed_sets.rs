//! Rows of one network with different sets of branches share a forward on a device that gains from it, and are what they are
//! alone, to the last bit.

use candle_core::Tensor;
use pentimento_gpu::{Emulation, Gpu};
use pentimento_kernels::{Device, GpuDevice, Precision};
use pentimento_models::{
    LayerKind, LayerName, LayerPatch, LayerShape, PreparedConditioning, RowNetwork, UNet, UNetInput,
};
use pentimento_testkit::{Tolerance, assert_close, compare};

use crate::patched::{Change, factors, is_matrix};
use crate::support::{close, prepare, unet_on, wave};

fn emulated(precision: Precision) -> Device {
    let gpu = Gpu::emulated(Emulation::default());
    Device::Gpu(GpuDevice::new(gpu, precision))
}

/// A copy with branches of this rank and strength in the layers whose names have `part` in them, and with other norms where
/// `merged`.
fn with_set(network: &UNet, (rank, strength): (usize, f64), part: &str, merged: bool) -> UNet {
    let mut change = |name: &LayerName, shape: LayerShape| -> Change {
        if is_matrix(shape) && name.as_str().contains(part) {
            let (down, up) = factors(shape, rank, 0.3);
            let up = (up * strength).unwrap();
            return Ok(Some(LayerPatch::Branch { down, up }));
        }
        let weights = LayerPatch::Weights {
            weight: (wave(&[shape.outputs], 0.2) + 1.0).unwrap(),
            bias: Some(wave(&[shape.outputs], 0.4)),
        };
        Ok((merged && shape.kind == LayerKind::Norm).then_some(weights))
    };
    let (copy, bytes) = network.patched(&mut change).unwrap();
    assert!(bytes > 0);
    copy
}

/// Two sets, and none. Images of two rows, one and two, of which the second merges tokens.
struct Images {
    networks: [UNet; 3],
    texts: [Vec<PreparedConditioning>; 3],
    sample: Tensor,
}

const COUNTS: [usize; 3] = [2, 1, 2];
const STEPS: [f32; 3] = [700.0, 3.0, 250.0];
/// The network without a set.
const BASE: usize = 2;

impl Images {
    fn on(device: &Device) -> Self {
        let base = unet_on("tiny", device);
        let networks = [
            with_set(&base, (3, 4.0), "", false),
            with_set(&base, (40, 1.0), "attn", false),
            base,
        ];
        let texts = [0, 1, 2].map(|image| {
            let states = wave(&[COUNTS[image], 77, 32], STEPS[image]);
            prepare(&networks[image], &states)
        });
        Self {
            networks,
            texts,
            sample: wave(&[3, 4, 5, 7], 0.3),
        }
    }

    /// The predictions of these images, each with its own network, by the network of number `by`.
    fn predict(&self, by: usize, images: &[usize]) -> Tensor {
        let networks: Vec<&UNet> = images.iter().map(|image| &self.networks[*image]).collect();
        self.predict_as(&networks, by, images)
    }

    fn predict_as(&self, networks: &[&UNet], by: usize, images: &[usize]) -> Tensor {
        let samples = images.iter().map(|image| self.sample.narrow(0, *image, 1));
        let samples = samples.collect::<Result<Vec<_>, _>>().unwrap();
        let timesteps: Vec<f32> = images.iter().map(|image| STEPS[*image]).collect();
        let texts = images.iter().flat_map(|image| self.texts[*image].clone());
        let rows: Vec<usize> = images.iter().map(|image| COUNTS[*image]).collect();
        let merging: Vec<bool> = images.iter().map(|image| *image == 1).collect();
        let networks: Vec<RowNetwork> = networks.iter().map(|network| network.row_network()).collect();
        let input = UNetInput {
            sample: &Tensor::cat(&samples, 0).unwrap(),
            timesteps: &timesteps,
            conditioning: &texts.collect::<Vec<_>>(),
            rows: &rows,
            guidance_embedding: None,
            merging: &merging,
            networks: &networks,
        };
        self.networks[by].forward(input).unwrap()
    }
}

#[test]
fn rows_of_several_sets_are_what_they_are_alone() {
    let cpu = Images::on(&Device::Cpu);
    let expected = [0, 1, 2].map(|image| cpu.predict(image, &[image]));
    for (precision, tolerance) in [
        (Precision::F32, Tolerance::UNET),
        (Precision::F16, Tolerance::HALF),
    ] {
        let rows = Images::on(&emulated(precision));
        let alone = [0, 1, 2].map(|image| rows.predict(image, &[image]));
        for (image, found) in alone.iter().enumerate() {
            // In f16 other tokens may be the nearest.
            if precision == Precision::F32 || image != 1 {
                close(&format!("image {image}"), found, &expected[image], tolerance);
            }
            let plain = rows.predict_as(&[&rows.networks[BASE]], image, &[image]);
            let differs = compare(found, &plain).unwrap();
            assert_eq!(differs.mean > 1e-3, image != BASE, "a set shows: {differs:?}");
        }
        for (by, images) in [(0, [0, 1, 2]), (BASE, [2, 0, 1])] {
            let together = rows.predict(by, &images);
            let mut first = 0;
            for image in images {
                let found = together.narrow(0, first, COUNTS[image]).unwrap();
                let what = format!("image {image} of {images:?} by {by} in {precision:?}");
                assert_close(&what, &found, &alone[image], Tolerance::EXACT);
                first += COUNTS[image];
            }
        }
    }
}

/// Which rows may share a forward: those of clones, and of branches beside the same weights where it gains.
#[test]
fn sets_share_the_programs_of_their_base_where_they_mix() {
    for (device, mixes) in [(Device::Cpu, false), (emulated(Precision::F32), true)] {
        assert_eq!(device.mixes_sets(), mixes);
        let base = unet_on("tiny", &device);
        let programs = |network: &UNet| network.row_network().programs();
        let [branches, merged] = [false, true].map(|merged| with_set(&base, (2, 8.0), "attn", merged));
        assert_eq!(programs(&base.clone()), programs(&base));
        assert_eq!(programs(&branches) == programs(&base), mixes);
        assert_ne!(programs(&merged), programs(&base), "its norms are others");
        assert_ne!(
            programs(&unet_on("tiny", &device)),
            programs(&base),
            "of another load"
        );
        // A set on a set has nobody to share with.
        let on_set = with_set(&branches, (2, 1.0), "time_emb", false);
        assert_ne!(programs(&on_set), programs(&branches));
        let sample = wave(&[1, 4, 5, 7], 0.3);
        let run = |network: &UNet, with: &UNet| {
            network.forward(UNetInput {
                sample: &sample,
                timesteps: &[20.0],
                conditioning: &prepare(network, &wave(&[1, 77, 32], 0.1)),
                rows: &[],
                guidance_embedding: None,
                merging: &[],
                networks: &[with.row_network()],
            })
        };
        let error = run(&base, &merged).unwrap_err().to_string();
        assert!(error.starts_with("networks has shape [1]"), "{error}");
        assert_eq!(run(&base, &branches).is_ok(), mixes);
        // What does not share computes with its branches all the same.
        let plain = with_set(&base, (2, 8.0), "no layer", true);
        let [plain, both] = [&plain, &merged].map(|network| run(network, network).unwrap());
        let differs = compare(&plain, &both).unwrap();
        assert!(differs.mean > 1e-3, "branches beside other weights: {differs:?}");
    }
}
