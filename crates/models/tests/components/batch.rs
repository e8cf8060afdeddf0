//! A row's result is the same, bit for bit, alone and in any company.

use candle_core::{DType, Device, Tensor};
use pentimento_models::{PreparedConditioning, UNet, UNetInput, guidance_embedding};
use pentimento_testkit::{Tolerance, assert_close};
use pentimento_weights::{Component, Dtypes};

use crate::support::{CPU, prepare, source, text_encoder, unet, vae, wave};

/// Each row of a batch of 16 with mixed timesteps and token merging, then the same rows alone and in batches of other sizes.
fn rows_do_not_meet(unet: &UNet, (h, w): (usize, usize), guided: bool) {
    const ROWS: usize = 16;
    let (channels, width) = (unet.config().in_channels, unet.config().cross_attention_dim);
    let sample = wave(&[ROWS, channels, h, w], 0.3);
    let text = wave(&[ROWS, 77, width], 0.7);
    let prepared = prepare(unet, &text);
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let steps: Vec<f32> = (0..ROWS).map(|i| 999.0 - 61.5 * i as f32).collect();
    let embeddings: Vec<Tensor> = (0_u8..16)
        .map(|i| guidance_embedding(f64::from(i) * 0.5, 256).unwrap())
        .collect();
    let embeddings = Tensor::cat(&embeddings, 0).unwrap();
    // Some merge tokens and some do not. Each image has the texts that are named with it.
    let run_texts = |images: &[(u32, &[u32])]| {
        let numbers: Vec<u32> = images.iter().map(|(image, _)| *image).collect();
        let merging: Vec<bool> = numbers.iter().map(|number| number % 3 == 1).collect();
        let timesteps: Vec<f32> = numbers.iter().map(|number| steps[*number as usize]).collect();
        let numbers = Tensor::new(numbers, &CPU).unwrap();
        let pick = |x: &Tensor| x.index_select(&numbers, 0).unwrap();
        let guidance = guided.then(|| pick(&embeddings));
        let texts = images.iter().flat_map(|(_, texts)| *texts);
        let texts = texts.map(|text| prepared[*text as usize].clone());
        unet.forward(UNetInput {
            sample: &pick(&sample),
            timesteps: &timesteps,
            conditioning: &texts.collect::<Vec<PreparedConditioning>>(),
            rows: &images.iter().map(|(_, texts)| texts.len()).collect::<Vec<_>>(),
            guidance_embedding: guidance.as_ref(),
            merging: &merging,
            networks: &[],
        })
        .unwrap()
    };
    let run = |rows: &[u32]| {
        let images: Vec<(u32, &[u32])> = rows
            .iter()
            .zip(rows.chunks(1))
            .map(|(row, text)| (*row, text))
            .collect();
        run_texts(&images)
    };
    let all = run(&(0..16).collect::<Vec<_>>());
    for rows in [&[0][..], &[7], &[15], &[3, 9], &[15, 0], &[1, 2, 3], &[5, 5, 14]] {
        let found = run(rows);
        let expected = all.index_select(&Tensor::new(rows, &CPU).unwrap(), 0).unwrap();
        assert_close(
            &format!("{h}x{w} rows {rows:?}"),
            &found,
            &expected,
            Tolerance::EXACT,
        );
    }
    // Rows of one image beside others, which are computed together up to the text, and each by itself.
    let together = run_texts(&[(3, &[9, 3]), (5, &[5]), (4, &[0, 1, 2])]);
    for (row, (image, text)) in [(3, 9), (3, 3), (5, 5), (4, 0), (4, 1), (4, 2)]
        .into_iter()
        .enumerate()
    {
        assert_close(
            &format!("{h}x{w} image {image} with text {text}"),
            &run_texts(&[(image, &[text])]),
            &together.narrow(0, row, 1).unwrap(),
            Tolerance::EXACT,
        );
    }
}

#[test]
fn unet_rows_do_not_meet() {
    let unet = unet("tiny");
    for size in [(8, 8), (9, 7), (1, 1), (24, 16)] {
        rows_do_not_meet(&unet, size, false);
    }
}

#[test]
fn guided_unet_rows_do_not_meet() {
    rows_do_not_meet(&unet("tiny-lcm"), (12, 8), true);
}

/// Widths and sizes at which candle switches to its parallel loops, which the tiny models never reach.
#[test]
fn wide_unet_rows_do_not_meet() {
    let config = serde_json::json!({
        "block_out_channels": [96, 192],
        "cross_attention_dim": 96,
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    });
    let component = Component::seeded(3, Dtypes::All(DType::F32), &Device::Cpu);
    let unet = UNet::new(&serde_json::from_value(config).unwrap(), source(&component)).unwrap();
    rows_do_not_meet(&unet, (16, 12), false);
}

#[test]
fn text_rows_do_not_meet() {
    let text = text_encoder("quick_gelu");
    let ids: Vec<u32> = (0..5 * 77).map(|i| i * 37 % 1000).collect();
    let ids = Tensor::from_vec(ids, (5, 77), &CPU).unwrap();
    let all = text.forward(&ids, 1).unwrap();
    for row in 0..5 {
        let alone = text.forward(&ids.narrow(0, row, 1).unwrap(), 1).unwrap();
        assert_close("text", &alone, &all.narrow(0, row, 1).unwrap(), Tolerance::EXACT);
    }
}

#[test]
fn vae_rows_do_not_meet() {
    let vae = vae();
    let images = wave(&[3, 3, 40, 64], 0.2);
    let latents = wave(&[3, 4, 5, 8], 0.4);
    let (moments, decoded) = (
        vae.encode_moments(&images).unwrap(),
        vae.decode(&latents).unwrap(),
    );
    for row in 0..3 {
        let one = |x: &Tensor| x.narrow(0, row, 1).unwrap();
        assert_close(
            "encode",
            &vae.encode_moments(&one(&images)).unwrap(),
            &one(&moments),
            Tolerance::EXACT,
        );
        assert_close(
            "decode",
            &vae.decode(&one(&latents)).unwrap(),
            &one(&decoded),
            Tolerance::EXACT,
        );
    }
}
