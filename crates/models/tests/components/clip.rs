//! The text encoder against transformers.

use candle_core::DType;
use pentimento_testkit::{Golden, Tolerance};

use crate::support::{close, text_encoder};

#[test]
fn hidden_states_equal_transformers() {
    let golden = Golden::open("components/clip.safetensors");
    let ids = golden.tensor("ids").to_dtype(DType::U32).unwrap();
    for activation in ["quick_gelu", "gelu"] {
        let text = text_encoder(activation);
        for skip in [1, 2, 3, 6] {
            let name = format!("{activation}.{skip}");
            close(
                &name,
                &text.forward(&ids, skip).unwrap(),
                golden.tensor(&name),
                Tolerance::CLIP,
            );
        }
    }
}

#[test]
fn clip_skip_and_ids_have_a_range() {
    let text = text_encoder("quick_gelu");
    let ids = candle_core::Tensor::zeros((1, 77), DType::U32, &candle_core::Device::Cpu).unwrap();
    assert_eq!(
        text.forward(&ids, 0).unwrap_err().to_string(),
        "clip_skip is 0, expected 1 to 6"
    );
    assert!(text.forward(&ids, 7).is_err());
    let unknown = (ids.to_dtype(DType::F32).unwrap() + 1000.0)
        .unwrap()
        .to_dtype(DType::U32)
        .unwrap();
    assert!(text.forward(&unknown, 1).is_err());
    let long = candle_core::Tensor::zeros((1, 78), DType::U32, &candle_core::Device::Cpu).unwrap();
    assert_eq!(
        text.forward(&long, 1).unwrap_err().to_string(),
        "token ids has shape [1, 78], expected (B, 1 to 77)"
    );
}
