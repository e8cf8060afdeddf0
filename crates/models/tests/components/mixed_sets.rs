//! Rows of one network with different sets of branches share a forward on a device that gains from it, and are what they are
//! alone, to the last bit.

use candle_core::Tensor;
use pentimento_gpu::{Emulation, Gpu};
use pentimento_kernels::{Device, GpuDevice, Precision};
use pentimento_models::{
    LayerKind, LayerName, LayerPatch, LayerShape, PreparedConditioning, UNet, UNetInput,
};
use pentimento_testkit::{Tolerance, assert_close};

use crate::patched::{Change, factors, is_matrix};
use crate::support::{close, prepare, unet_on, wave};

fn emulated(precision: Precision) -> Device {
    let gpu = Gpu::emulated(Emulation::default());
    Device::Gpu(GpuDevice::new(gpu, precision))
}

/// A copy with branches of this rank in the layers whose names have `part` in them, and with other norms where `merged`.
fn with_set(network: &UNet, rank: usize, part: &str, merged: bool) -> UNet {
    let mut change = |name: &LayerName, shape: LayerShape| -> Change {
        if is_matrix(shape) && name.as_str().contains(part) {
            let (down, up) = factors(shape, rank, 0.2 * rank as f32);
            // So that a set shows in a prediction, and two of them differ.
            let up = (up * 4.0).unwrap();
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

/// Two sets, and none. Images of one, two and three rows, of which the second merges tokens.
struct Rows {
    networks: [UNet; 3],
    texts: [Vec<PreparedConditioning>; 3],
    sample: Tensor,
}

const COUNTS: [usize; 3] = [2, 1, 2];
const STEPS: [f32; 3] = [700.0, 3.0, 250.0];

impl Rows {
    fn on(device: &Device) -> Self {
        let base = unet_on("tiny", device);
        let networks = [
            with_set(&base, 3, "", false),
            with_set(&base, 40, "attn", false),
            base,
        ];
        let texts = [0.7, 0.1, 0.4].map(|phase| wave(&[2, 77, 32], phase));
        let texts = [0, 1, 2].map(|image| {
            let mut rows = prepare(&networks[image], &texts[image]);
            rows.truncate(COUNTS[image]);
            rows
        });
        Self {
            networks,
            texts,
            sample: wave(&[3, 4, 5, 7], 0.3),
        }
    }

    /// The predictions of these images by the network of number `by`.
    fn predict(&self, by: usize, images: &[usize], merging: bool) -> Tensor {
        let rows = images
            .iter()
            .map(|image| self.sample.narrow(0, *image, 1).unwrap());
        let picked: Vec<_> = images.iter().map(|image| &self.networks[*image]).collect();
        self.networks[by]
            .forward(UNetInput {
                sample: &Tensor::cat(&rows.collect::<Vec<_>>(), 0).unwrap(),
                timesteps: &images.iter().map(|image| STEPS[*image]).collect::<Vec<_>>(),
                conditioning: &images
                    .iter()
                    .flat_map(|image| self.texts[*image].clone())
                    .collect::<Vec<_>>(),
                rows: &images.iter().map(|image| COUNTS[*image]).collect::<Vec<_>>(),
                guidance_embedding: None,
                merging: &images
                    .iter()
                    .map(|image| merging && *image == 1)
                    .collect::<Vec<_>>(),
                networks: &picked
                    .iter()
                    .map(|network| network.row_network())
                    .collect::<Vec<_>>(),
            })
            .unwrap()
    }
}

#[test]
fn rows_of_several_sets_are_what_they_are_alone() {
    let cpu = Rows::on(&Device::Cpu);
    for (precision, tolerance) in [
        (Precision::F32, Tolerance::UNET),
        (Precision::F16, Tolerance::HALF),
    ] {
        let rows = Rows::on(&emulated(precision));
        let alone = [0, 1, 2].map(|image| rows.predict(image, &[image], true));
        for (image, found) in alone.iter().enumerate() {
            // In f16 other tokens may be the nearest.
            if precision == Precision::F32 || image != 1 {
                close(
                    &format!("image {image}"),
                    found,
                    &cpu.predict(image, &[image], true),
                    tolerance,
                );
            }
        }
        let differs = pentimento_testkit::compare(&alone[0], &cpu.predict(2, &[2], true)).unwrap();
        assert!(differs.mean > 1e-2, "a set shows: {differs:?}");
        for (by, images) in [(0, [0, 1, 2]), (2, [0, 1, 2]), (1, [2, 0, 1])] {
            let together = rows.predict(by, &images, true);
            let mut first = 0;
            for image in images {
                let found = together.narrow(0, first, COUNTS[image]).unwrap();
                let what = format!("image {image} of {images:?} by {by} in {precision:?}");
                assert_close(&what, &found, &alone[image], Tolerance::EXACT);
                first += COUNTS[image];
            }
        }
        // The base beside itself has no branch at all, and a set that predicts for it alone has none either.
        let found = rows.predict(0, &[2], true);
        assert_close("the base by a set", &found, &alone[2], Tolerance::EXACT);
    }
}

/// Which rows may share a forward: those of clones, and of branches beside the same weights where it gains.
#[test]
fn sets_share_the_programs_of_their_base_where_they_mix() {
    for (device, mixes) in [(Device::Cpu, false), (emulated(Precision::F32), true)] {
        assert_eq!(device.mixes_sets(), mixes);
        let base = unet_on("tiny", &device);
        let programs = |network: &UNet| network.row_network().programs();
        let [branches, merged] = [false, true].map(|merged| with_set(&base, 2, "attn", merged));
        assert_eq!(programs(&base.clone()), programs(&base));
        assert_eq!(programs(&branches) == programs(&base), mixes);
        assert_ne!(programs(&merged), programs(&base), "its norms are others");
        assert_ne!(
            programs(&unet_on("tiny", &device)),
            programs(&base),
            "of another load"
        );
        // What does not share is refused, and what is merged computes with its branches.
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
        let plain = with_set(&base, 2, "no layer", true);
        let [plain, both] = [&plain, &merged].map(|network| run(network, network).unwrap());
        let differs = pentimento_testkit::compare(&plain, &both).unwrap();
        assert!(differs.mean > 1e-3, "branches beside other weights: {differs:?}");
    }
}
