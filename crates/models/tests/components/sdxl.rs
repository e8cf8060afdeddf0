//! What only SDXL has: a text encoder with a pooled state, and a UNet that takes it with the sizes of the image.

use candle_core::{DType, Tensor};
use pentimento_models::{
    ClipText, ClipTokenizer, Conditioning, Device, ImageTokens, LayerSource, PreparedConditioning, UNet,
    UNetInput,
};
use pentimento_testkit::{Golden, Tolerance, assert_close};
use pentimento_weights::{Checkpoint, Dtypes};
use serde_json::Value;

use crate::support::{CPU, On, close, tiny, wave};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

pub(crate) fn second_encoder(device: On<'_>) -> ClipText {
    let model = tiny("tiny-sdxl");
    let weights = model
        .component("text_encoder_2", Dtypes::All(DType::F32), &CPU)
        .unwrap();
    let config = model.json("text_encoder_2/config.json").unwrap();
    let text = ClipText::with_projection(&config, LayerSource::new(weights.var_builder(), device)).unwrap();
    weights.finish().unwrap();
    text
}

/// The tiny UNet, or the same as a distilled model has it, with `cond_proj`.
pub(crate) fn unet(cond_proj: Option<&Tensor>, device: On<'_>) -> UNet {
    let model = tiny("tiny-sdxl");
    let mut config: Value = model.json("unet/config.json").unwrap();
    let mut tensors = candle_core::safetensors::load_buffer(&model.read(UNET).unwrap(), &CPU).unwrap();
    if let Some(cond_proj) = cond_proj {
        config["time_cond_proj_dim"] = 256.into();
        tensors.insert("time_embedding.cond_proj.weight".to_owned(), cond_proj.clone());
    }
    let bytes = safetensors::serialize(tensors, None).unwrap();
    let changed = Checkpoint::in_memory("m", move |path| (path == UNET).then(|| bytes.clone()));
    let weights = changed.component("unet", Dtypes::All(DType::F32), &CPU).unwrap();
    let unet = UNet::new(
        &serde_json::from_value(config).unwrap(),
        LayerSource::new(weights.var_builder(), device),
    )
    .unwrap();
    weights.finish().unwrap();
    unet
}

/// Row `row` of the golden file's texts.
pub(crate) fn conditioning(golden: &Golden, row: usize) -> Conditioning {
    let of_row = |name: &str| {
        golden
            .tensor(name)
            .narrow(0, row, 1)
            .unwrap()
            .contiguous()
            .unwrap()
    };
    let sizes: Vec<f32> = of_row("sizes").flatten_all().unwrap().to_vec1().unwrap();
    Conditioning {
        pooled: Some(of_row("pooled")),
        size_conditions: Some(sizes.try_into().unwrap()),
        ..Conditioning::from_text(of_row("context"))
    }
}

#[test]
fn states_and_pooled_state_equal_transformers() {
    let golden = Golden::open("components/clip-sdxl.safetensors");
    let ids = golden.tensor("ids").to_dtype(DType::U32).unwrap();
    let text = second_encoder(&Device::Cpu);
    let end = text.config().vocab_size - 1;
    for skip in [1, 2, 3] {
        let found = text
            .forward_raw(&ids, None, skip, u32::try_from(end).unwrap())
            .unwrap();
        let name = format!("states.{skip}");
        close(&name, &found.token_states, golden.tensor(&name), Tolerance::CLIP);
        close(
            "pooled",
            &found.pooled.unwrap(),
            golden.tensor("pooled"),
            Tolerance::CLIP,
        );
    }
    assert_eq!(text.pooled_width(), Some(20));
    // Four layers, the last of which is never the answer; and no row has this end token.
    for (skip, end) in [(0, 999), (5, 999), (1, 123_456)] {
        assert!(text.forward_raw(&ids, None, skip, end).is_err(), "{skip} {end}");
    }
    let mut names = Vec::new();
    text.layers(&mut |name, _| names.push(name.to_string()));
    assert_eq!(names.last().map(String::as_str), Some("text_projection"));
}

#[test]
fn the_second_tokenizer_pads_by_the_token_zero() {
    let model = tiny("tiny-sdxl");
    let read = |file: &str| model.read(&format!("tokenizer_2/{file}")).unwrap();
    let (vocabulary, merges) = (read("vocab.json"), read("merges.txt"));
    let tokenizer = |config: Option<&[u8]>, special: Option<&[u8]>| {
        ClipTokenizer::from_files(&vocabulary, &merges, config, special).unwrap()
    };
    let golden = Golden::open("components/clip-sdxl.safetensors");
    let expected = golden
        .tensor("ids")
        .to_dtype(DType::U32)
        .unwrap()
        .to_vec2::<u32>()
        .unwrap();
    let texts: Vec<String> = serde_json::from_value(golden.about()["texts"].clone()).unwrap();
    let config = read("tokenizer_config.json");
    let second = tokenizer(Some(&config), None);
    for (text, expected) in texts.iter().zip(&expected) {
        assert_eq!(&second.encode(text).unwrap(), expected, "{text}");
    }
    assert_eq!(second.end(), 999);
    // Stable Diffusion 2 says it in the other file, against the first one.
    let pads = |config: &[u8], special: &[u8]| tokenizer(Some(config), Some(special)).encode("").unwrap()[2];
    let (by_end, by_zero) = (br#"{"pad_token": "<|endoftext|>"}"#, br#"{"pad_token": "!"}"#);
    assert_eq!((pads(by_end, by_zero), pads(by_zero, by_end)), (0, 999));
    let newer = br#"{"pad_token": "<|endoftext|>", "added_tokens_decoder": {}}"#;
    assert_eq!(pads(newer, by_zero), 999);
}

#[test]
fn predictions_equal_diffusers_with_text_and_sizes_per_row() {
    let golden = Golden::open("components/unet-sdxl.safetensors");
    let timesteps: Vec<f32> = golden.tensor("steps").to_vec1().unwrap();
    for (name, cond_proj) in [("plain", None), ("lcm", Some(golden.tensor("cond_proj")))] {
        let unet = unet(cond_proj, &Device::Cpu);
        let rows = (0..3).map(|row| unet.prepare(&conditioning(&golden, row)).unwrap());
        let rows: Vec<PreparedConditioning> = rows.collect();
        for size in ["8x8", "9x7"] {
            let found = unet.forward(UNetInput {
                sample: golden.tensor(&format!("{size}.sample")),
                timesteps: &timesteps,
                conditioning: &rows,
                rows: &[],
                guidance_embedding: cond_proj.map(|_| golden.tensor("guidance")),
                merging: &[],
                networks: &[],
            });
            let name = format!("{size}.{name}");
            close(&name, &found.unwrap(), golden.tensor(&name), Tolerance::UNET);
        }
    }
}

/// A guided image's two rows have one latent and one timestep, and their own pooled texts.
#[test]
fn rows_of_an_image_are_those_of_each_alone() {
    let golden = Golden::open("components/unet-sdxl.safetensors");
    let unet = unet(None, &Device::Cpu);
    let rows: Vec<_> = (0..3)
        .map(|row| unet.prepare(&conditioning(&golden, row)).unwrap())
        .collect();
    let sample = wave(&[2, 4, 9, 7], 0.4);
    let run = |images: &[usize], counts: &[usize], texts: &[usize]| {
        let picked: Vec<u32> = images
            .iter()
            .map(|image| u32::try_from(*image).unwrap())
            .collect();
        let steps = [700.0, 3.0];
        unet.forward(UNetInput {
            sample: &sample
                .index_select(&Tensor::new(picked, &CPU).unwrap(), 0)
                .unwrap(),
            timesteps: &images.iter().map(|image| steps[*image]).collect::<Vec<_>>(),
            conditioning: &texts.iter().map(|text| rows[*text].clone()).collect::<Vec<_>>(),
            rows: counts,
            guidance_embedding: None,
            merging: &[true, true][..images.len()],
            networks: &[],
        })
        .unwrap()
    };
    let together = run(&[0, 1], &[2, 1], &[1, 0, 2]);
    for (row, (image, text)) in [(0, 1), (0, 0), (1, 2)].into_iter().enumerate() {
        assert_close(
            &format!("image {image} with text {text}"),
            &run(&[image], &[1], &[text]),
            &together.narrow(0, row, 1).unwrap(),
            Tolerance::EXACT,
        );
    }
}

#[test]
fn what_a_text_lacks_or_has_beyond_it_is_named() {
    let golden = Golden::open("components/unet-sdxl.safetensors");
    let unet = unet(None, &Device::Cpu);
    let error = |change: fn(&mut Conditioning)| {
        let mut conditioning = conditioning(&golden, 0);
        change(&mut conditioning);
        unet.prepare(&conditioning).unwrap_err().to_string()
    };
    assert_eq!(
        error(|c| c.pooled = None),
        "pooled state has shape [], expected (1, 20)"
    );
    let narrow = error(|c| c.pooled = Some(wave(&[1, 19], 0.0)));
    assert_eq!(narrow, "pooled state has shape [1, 19], expected (1, 20)");
    assert_eq!(
        error(|c| c.size_conditions = None),
        "size conditions has shape [], expected 6 numbers"
    );
    assert_eq!(
        error(|c| {
            c.image_tokens = Some(ImageTokens {
                tokens: wave(&[1, 4, 56], 0.0),
                scale: 1.0,
            });
        }),
        "this UNet takes no image tokens"
    );
    let parts = wave(&[1, 77, 56], 0.1);
    let half = |start| parts.narrow(2, start, 28).unwrap().contiguous().unwrap();
    let joined = Conditioning {
        token_states: vec![half(0), half(28)],
        ..conditioning(&golden, 0)
    };
    assert!(unet.prepare(&joined).unwrap().size_bytes() > 0);
}
