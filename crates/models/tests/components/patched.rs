//! A copy of a network with some layers changed is the network with those weights, and leaves the original as it was.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use pentimento_models::{
    Device, LayerKind, LayerName, LayerPatch, LayerShape, LayerSource, ModelError, UNet,
};
use pentimento_testkit::{Golden, Tolerance};

use crate::support::{CPU, close, inputs, text_encoder, tiny, unet, wave};

pub(crate) type Change = Result<Option<LayerPatch>, ModelError>;

/// Low-rank factors (rank, inputs) and (outputs, rank) for a layer, small beside its weights.
pub(crate) fn factors(shape: LayerShape, rank: usize, phase: f32) -> (Tensor, Tensor) {
    let down = (wave(&[rank, shape.inputs], phase) * 0.05).unwrap();
    let up = (wave(&[shape.outputs, rank], 1.0 - phase) * 0.05).unwrap();
    (down, up)
}

pub(crate) fn is_matrix(shape: LayerShape) -> bool {
    matches!(shape.kind, LayerKind::Linear | LayerKind::Pointwise)
}

/// The UNet's tensors in f32.
fn stored() -> HashMap<String, Tensor> {
    let bytes = tiny("tiny")
        .read("unet/diffusion_pytorch_model.safetensors")
        .unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &CPU).unwrap();
    let widened = tensors.into_iter();
    widened
        .map(|(name, tensor)| (name, tensor.to_dtype(DType::F32).unwrap()))
        .collect()
}

fn rebuilt(tensors: HashMap<String, Tensor>) -> UNet {
    let config = tiny("tiny").json("unet/config.json").unwrap();
    let tensors = VarBuilder::from_tensors(tensors, DType::F32, &CPU);
    UNet::new(&config, LayerSource::new(tensors, &Device::Cpu)).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn branches_are_what_merging_them_is() {
    let golden = Golden::open("components/unet-tiny.safetensors");
    let network = unet("tiny");
    let mut tensors = stored();
    let (mut layers, mut expected_bytes) = (0, 0);
    let (patched, own) = network
        .patched(&mut |name: &LayerName, shape: LayerShape| -> Change {
            if !is_matrix(shape) {
                return Ok(None);
            }
            layers += 1;
            let (down, up) = factors(shape, 4, 0.3);
            expected_bytes += (down.elem_count() + up.elem_count()) as u64 * 4;
            let tensor = tensors.get_mut(&format!("{name}.weight")).unwrap();
            let change = up.matmul(&down).unwrap().reshape(tensor.shape()).unwrap();
            *tensor = (&*tensor + change).unwrap();
            Ok(Some(LayerPatch::Branch { down, up }))
        })
        .unwrap();
    assert!(layers > 20, "{layers}");
    assert!(
        own >= expected_bytes && own < 8 * expected_bytes,
        "{own} {expected_bytes}"
    );
    assert_eq!(patched.size_bytes(), network.size_bytes() + own);
    let merged = rebuilt(tensors);
    let before = unet("tiny");
    for size in ["8x8", "9x7"] {
        let run = |network: &UNet| {
            let given = inputs(&golden, network);
            network.forward(given.of(size)).unwrap()
        };
        let (plain, changed) = (run(&network), run(&patched));
        close(size, &changed, &run(&merged), Tolerance::UNET);
        assert_ne!(bits(&plain), bits(&changed));
        assert_eq!(bits(&plain), bits(&run(&before)), "the original has changed");
    }
}

#[test]
fn other_weights_are_those_of_a_network_that_was_loaded_with_them() {
    let golden = Golden::open("components/unet-tiny.safetensors");
    let network = unet("tiny");
    let mut tensors = stored();
    let mut kinds = Vec::new();
    let change = |tensor: &mut Tensor, factor: f64| {
        *tensor = (&*tensor * factor).unwrap();
        tensor.clone()
    };
    let (patched, own) = network
        .patched(&mut |name: &LayerName, shape: LayerShape| -> Change {
            if kinds.len() > 40 {
                return Ok(None);
            }
            kinds.push(shape.kind);
            let weight = change(tensors.get_mut(&format!("{name}.weight")).unwrap(), 1.5);
            let bias = tensors.get_mut(&format!("{name}.bias"));
            let bias = bias.map(|bias| change(bias, -0.5));
            Ok(Some(LayerPatch::Weights { weight, bias }))
        })
        .unwrap();
    for kind in [
        LayerKind::Linear,
        LayerKind::Pointwise,
        LayerKind::Conv2d,
        LayerKind::Norm,
    ] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
    assert!(own > 0 && own < patched.size_bytes());
    let merged = rebuilt(tensors);
    let run = |network: &UNet| {
        let given = inputs(&golden, network);
        bits(&network.forward(given.of("8x8")).unwrap())
    };
    assert_eq!(run(&patched), run(&merged));
    assert_ne!(run(&patched), run(&network));
}

#[test]
fn a_text_encoder_has_branches_beside_its_activations() {
    let text = text_encoder("quick_gelu");
    let (patched, _) = text
        .patched(&mut |_: &LayerName, shape: LayerShape| -> Change {
            let (down, up) = factors(shape, 2, 0.7);
            Ok(is_matrix(shape).then_some(LayerPatch::Branch { down, up }))
        })
        .unwrap();
    let ids = Tensor::from_vec((0..154_u32).collect::<Vec<_>>(), (2, 77), &CPU).unwrap();
    let both = patched.forward(&ids, 1).unwrap();
    assert_ne!(bits(&both), bits(&text.forward(&ids, 1).unwrap()));
    for row in 0..2 {
        let alone = patched.forward(&ids.narrow(0, row, 1).unwrap(), 1).unwrap();
        assert_eq!(bits(&alone), bits(&both.narrow(0, row, 1).unwrap()));
    }
}

#[test]
fn patches_that_do_not_fit_are_refused() {
    let network = unet("tiny");
    let refused = |wanted: LayerKind, patch: fn(LayerShape) -> LayerPatch| {
        let change = network.patched(&mut |_: &LayerName, shape: LayerShape| -> Change {
            Ok((shape.kind == wanted).then(|| patch(shape)))
        });
        change.unwrap_err()
    };
    let branch = |shape| {
        let (down, up) = factors(shape, 2, 0.5);
        LayerPatch::Branch { down, up }
    };
    refused(LayerKind::Conv2d, branch);
    refused(LayerKind::Norm, branch);
    refused(LayerKind::Linear, |shape| LayerPatch::Weights {
        weight: wave(&[shape.outputs, shape.inputs + 1], 0.1),
        bias: None,
    });
    let change = &mut |_: &LayerName, shape: LayerShape| -> Change {
        Ok((shape.kind == LayerKind::Linear).then(|| branch(shape)))
    };
    let (once, _) = network.patched(change).unwrap();
    assert!(once.patched(change).is_err(), "changed twice");
}
