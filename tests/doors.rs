//! One suite over all doors: the same request means the same, whichever of them it comes by.
//!
//! A door is an entry of [`DOORS`]: how it says a request, where its pictures stand, and how it names what is wrong.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use serde_json::{Value, json};

use crate::lora;
use crate::support::client::{get, http, send};
use crate::support::pictures::decode;
use crate::support::server::TestServer;

/// A request in nobody's words.
#[derive(Clone)]
struct Asked {
    image: RgbImage,
    /// White is made anew.
    mask: Option<GrayImage>,
    prompt: String,
    scheduler: &'static str,
    steps: u32,
    strength: f64,
    guidance: f64,
    seed: u64,
    count: u32,
    lora: Option<(&'static str, f64)>,
    /// None leaves the picture's own.
    size: Option<(u32, u32)>,
}

impl Asked {
    fn new() -> Self {
        Self {
            image: RgbImage::from_fn(64, 64, |x, y| Rgb([(x * 4) as u8, (y * 3) as u8, 90])),
            mask: None,
            prompt: "a red house under a blue sky".to_owned(),
            scheduler: "DDIMScheduler",
            steps: 4,
            strength: 0.75,
            guidance: 2.0,
            seed: 7,
            count: 1,
            lora: None,
            size: None,
        }
    }

    /// What Novita's call always runs; it begins at the same noise level as the others where nothing of the image is kept.
    fn lcm() -> Self {
        Self {
            scheduler: "LCMScheduler",
            strength: 1.0,
            guidance: 1.0,
            ..Self::new()
        }
    }

    /// The left half is made anew.
    fn masked() -> Self {
        let (width, height) = (64, 64);
        let mask = GrayImage::from_fn(width, height, |x, _| Luma([if x < width / 2 { 255 } else { 0 }]));
        Self {
            mask: Some(mask),
            ..Self::new()
        }
    }

    fn result_size(&self) -> (u32, u32) {
        self.size.unwrap_or_else(|| self.image.dimensions())
    }
}

/// Where a picture of a reply is.
enum Picture {
    Link(String),
    Base64(String),
}

/// What a request may say, and what every door must have a word for, or none at all.
const MEANINGS: [&str; 9] = [
    "prompt",
    "seed",
    "strength",
    "steps",
    "count",
    "size",
    "mask",
    "lora",
    "scheduler",
];

/// A field and a wrong value for it, as JSON.
type Wrong = (&'static str, &'static str);

struct Door {
    name: &'static str,
    /// Whether it has words for the request.
    can: fn(&Asked) -> bool,
    path: &'static str,
    body: fn(&Asked) -> Value,
    /// Where in the body the fields stand, as a JSON pointer.
    fields_at: &'static str,
    /// For each of [`MEANINGS`] the door's field with a wrong value; None where it has no such field. The value `"$long"` stands
    /// for a text that is too long for everybody.
    wrong: [Option<Wrong>; MEANINGS.len()],
    pictures: fn(&Value) -> Vec<Picture>,
    /// The field that a refusal names.
    refused: fn(&Value) -> Option<String>,
}

const DOORS: &[Door] = &[
    Door {
        name: "novita",
        can: |asked| asked.scheduler == "LCMScheduler" && asked.mask.is_none() && asked.size.is_none(),
        path: "/v3/lcm-img2img",
        body: |asked| {
            let lora = |(name, strength): (&str, f64)| json!({"model_name": name, "strength": strength});
            json!({
                "model_name": "demo",
                "input_image": base64(&asked.image),
                "prompt": asked.prompt,
                "steps": asked.steps,
                "strength": asked.strength,
                "guidance_scale": asked.guidance,
                "seed": asked.seed,
                "image_num": asked.count,
                "loras": asked.lora.map(lora).into_iter().collect::<Vec<_>>(),
            })
        },
        fields_at: "",
        wrong: [
            Some(("prompt", "\"$long\"")),
            Some(("seed", "\"lucky\"")),
            Some(("strength", "2")),
            Some(("steps", "0")),
            Some(("image_num", "99")),
            None,
            None,
            Some(("loras", "[{\"model_name\": \"none_such\", \"strength\": 1}]")),
            None,
        ],
        pictures: |reply| links(&reply["images"], |item| &item["image_url"]),
        refused: |reply| reply["metadata"]["field"].as_str().map(str::to_owned),
    },
    Door {
        name: "modelslab",
        can: |_| true,
        path: "/api/v1/enterprise/img2img",
        body: |asked| {
            let (width, height) = asked.result_size();
            let mut body = json!({
                "key": "any",
                "model_id": "demo",
                "init_image": base64(&asked.image),
                "prompt": asked.prompt,
                "scheduler": asked.scheduler,
                "num_inference_steps": asked.steps,
                "strength": asked.strength,
                "guidance_scale": asked.guidance,
                "seed": asked.seed,
                "samples": asked.count,
                "width": width,
                "height": height,
                "safety_checker": "no",
                "enhance_prompt": "no",
                "tomesd": "no",
                "use_karras_sigmas": "no",
            });
            if let Some(mask) = &asked.mask {
                body["mask_image"] = base64(mask).into();
            }
            if let Some((name, strength)) = asked.lora {
                body["lora_model"] = name.into();
                body["lora_strength"] = strength.into();
            }
            body
        },
        fields_at: "",
        wrong: [
            Some(("prompt", "\"$long\"")),
            Some(("seed", "\"lucky\"")),
            Some(("strength", "2")),
            Some(("num_inference_steps", "0")),
            Some(("samples", "99")),
            Some(("width", "5000")),
            Some(("mask_image", "\"not base64!\"")),
            Some(("lora_model", "\"none_such\"")),
            Some(("scheduler", "\"Nonsense\"")),
        ],
        pictures: |reply| links(&reply["output"], |item| item),
        refused: |reply| {
            let message = &reply["message"];
            // What is found out after all fields have been read is one sentence, which ends with the field.
            let sentence = message.as_str().and_then(|text| text.rsplit_once('('));
            let in_sentence = sentence.map(|(_, field)| field.trim_end_matches(')').to_owned());
            in_sentence.or_else(|| message.as_object()?.keys().next().cloned())
        },
    },
    Door {
        name: "a1111",
        can: |_| true,
        path: "/sdapi/v1/img2img",
        body: |asked| {
            let (width, height) = asked.result_size();
            let lora = asked
                .lora
                .map(|(name, strength)| format!("<lora:{name}:{strength}>"));
            let mut body = json!({
                "init_images": [base64(&asked.image)],
                "prompt": format!("{}{}", asked.prompt, lora.unwrap_or_default()),
                "sampler_name": asked.scheduler.trim_end_matches("Scheduler"),
                "scheduler": "Automatic",
                "steps": asked.steps,
                // There, one step more runs.
                "denoising_strength": asked.strength - 1.0 / f64::from(asked.steps),
                "cfg_scale": asked.guidance,
                "seed": asked.seed,
                "batch_size": asked.count,
                "width": width,
                "height": height,
            });
            if let Some(mask) = &asked.mask {
                body["mask"] = base64(mask).into();
                body["mask_blur"] = 0.into();
                body["inpaint_full_res"] = false.into();
                body["inpainting_fill"] = 1.into();
            }
            body
        },
        fields_at: "",
        wrong: [
            Some(("prompt", "\"$long\"")),
            Some(("seed", "\"lucky\"")),
            Some(("denoising_strength", "2")),
            Some(("steps", "0")),
            Some(("batch_size", "99")),
            Some(("width", "5000")),
            Some(("mask", "\"not base64!\"")),
            Some(("prompt", "\"x <lora:none_such:1>\"")),
            Some(("sampler_name", "\"Nonsense\"")),
        ],
        pictures: |reply| {
            let texts = reply["images"].as_array().into_iter().flatten();
            let texts = texts.filter_map(|text| text.as_str());
            texts.map(|text| Picture::Base64(text.to_owned())).collect()
        },
        refused: |reply| reply["detail"][0]["loc"][1].as_str().map(str::to_owned),
    },
    Door {
        name: "openai",
        can: |_| true,
        path: "/v1/images/edits",
        body: |asked| {
            let mut body = openai_fields(asked);
            let address = format!("data:image/png;base64,{}", base64(&asked.image));
            body["images"] = json!([{"image_url": address}]);
            body
        },
        fields_at: "",
        wrong: OPENAI_WRONG,
        pictures: |reply| {
            let items = reply["data"].as_array().into_iter().flatten();
            let texts = items.filter_map(|item| item["b64_json"].as_str());
            texts.map(|text| Picture::Base64(text.to_owned())).collect()
        },
        refused: |reply| reply["error"]["param"].as_str().map(str::to_owned),
    },
    Door {
        name: "mcp",
        can: |_| true,
        path: "/mcp",
        body: |asked| {
            let mut arguments = openai_fields(asked);
            arguments["image"] = base64(&asked.image).into();
            json!({
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": "generate_image", "arguments": arguments},
            })
        },
        fields_at: "/params/arguments",
        wrong: OPENAI_WRONG,
        pictures: |reply| {
            let blocks = reply["result"]["content"].as_array().into_iter().flatten();
            let texts = blocks.filter_map(|block| block["data"].as_str());
            texts.map(|text| Picture::Base64(text.to_owned())).collect()
        },
        refused: |reply| {
            let text = reply["result"]["content"][0]["text"].as_str()?;
            let end = text.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_')?;
            Some(text[..end].to_owned())
        },
    },
];

const OPENAI_WRONG: [Option<Wrong>; MEANINGS.len()] = [
    Some(("prompt", "\"$long\"")),
    Some(("seed", "\"lucky\"")),
    Some(("strength", "2")),
    Some(("steps", "0")),
    Some(("n", "99")),
    Some(("size", "\"5000x64\"")),
    Some(("mask", "\"not base64!\"")),
    Some(("loras", "[{\"model\": \"none_such\", \"strength\": 1}]")),
    Some(("scheduler", "\"Nonsense\"")),
];

/// Of OpenAI's calls, and of the tools whose arguments are named as theirs.
fn openai_fields(asked: &Asked) -> Value {
    let lora = |(name, strength): (&str, f64)| json!({"model": name, "strength": strength});
    let mut body = json!({
        "model": "demo",
        "prompt": asked.prompt,
        "scheduler": asked.scheduler,
        "steps": asked.steps,
        "strength": asked.strength,
        "guidance_scale": asked.guidance,
        "seed": asked.seed,
        "n": asked.count,
        "loras": asked.lora.map(lora).into_iter().collect::<Vec<_>>(),
    });
    if let Some(mask) = &asked.mask {
        // There, what is transparent is made anew.
        let alpha = RgbaImage::from_fn(mask.width(), mask.height(), |x, y| {
            Rgba([200, 30, 30, 255 - mask.get_pixel(x, y).0[0]])
        });
        body["mask"] = base64(&alpha).into();
    }
    if let Some((width, height)) = asked.size {
        body["size"] = format!("{width}x{height}").into();
    }
    body
}

fn links(list: &Value, link: fn(&Value) -> &Value) -> Vec<Picture> {
    let items = list.as_array().into_iter().flatten();
    let links = items.filter_map(|item| link(item).as_str());
    links.map(|link| Picture::Link(link.to_owned())).collect()
}

fn base64<P, C>(image: &image::ImageBuffer<P, C>) -> String
where
    P: image::Pixel<Subpixel = u8> + image::PixelWithColorType,
    C: std::ops::Deref<Target = [u8]>,
{
    let mut file = std::io::Cursor::new(Vec::new());
    image
        .write_to(&mut file, image::ImageFormat::Png)
        .expect("memory takes it");
    STANDARD.encode(file.into_inner())
}

impl Door {
    /// Whichever of its calls has masks.
    fn path_for(&self, has_mask: bool) -> String {
        let path = self.path;
        if has_mask {
            path.replace("enterprise/img2img", "enterprise/inpaint")
        } else {
            path.to_owned()
        }
    }

    async fn send(&self, server: &TestServer, has_mask: bool, body: &Value) -> Value {
        let address = format!("{}{}", server.base(), self.path_for(has_mask));
        // What the Model Context Protocol asks for.
        let accept = "application/json, text/event-stream";
        let request = http().post(address).header("accept", accept).json(body);
        send(request).await.json()
    }

    /// The pictures that it makes of a request.
    async fn pictures(&self, server: &TestServer, asked: &Asked) -> Vec<RgbImage> {
        let reply = self.send(server, asked.mask.is_some(), &(self.body)(asked)).await;
        let mut found = Vec::new();
        for picture in (self.pictures)(&reply) {
            found.push(match picture {
                Picture::Link(link) => decode(&get(&link).await.body),
                Picture::Base64(text) => decode(&STANDARD.decode(text).expect("base64")),
            });
        }
        assert_eq!(found.len(), asked.count as usize, "{}: {reply}", self.name);
        for picture in &found {
            assert_eq!(picture.dimensions(), asked.result_size(), "{}", self.name);
        }
        found
    }
}

/// What all doors that have words for a request make of it: always the same.
async fn by_every_door(server: &TestServer, asked: &Asked) -> Vec<RgbImage> {
    let mut all = Vec::new();
    for door in DOORS.iter().filter(|door| (door.can)(asked)) {
        all.push((door.name, door.pictures(server, asked).await));
    }
    assert!(all.len() > 1, "one door alone proves nothing");
    let (first, pictures) = all.swap_remove(0);
    for (name, others) in all {
        assert!(pictures == others, "{name} makes another picture than {first}");
    }
    pictures
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_is_the_same_picture_by_every_door() {
    let (server, _folder) = lora::server("");
    for asked in [Asked::new(), Asked::lcm()] {
        let first = by_every_door(&server, &asked).await;
        let next = Asked {
            seed: asked.seed + 1,
            ..asked.clone()
        };
        let next = by_every_door(&server, &next).await;
        assert!(first != next, "a seed decides");
        let both = Asked { count: 2, ..asked };
        let both = by_every_door(&server, &both).await;
        assert!(both == [first, next].concat(), "picture k has the seed plus k");
    }
    let larger = Asked {
        size: Some((128, 64)),
        ..Asked::new()
    };
    by_every_door(&server, &larger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mask_keeps_comes_back_pixel_for_pixel_by_every_door() {
    let server = TestServer::start();
    let asked = Asked::masked();
    let made = by_every_door(&server, &asked).await.remove(0);
    let changed = |left: bool| {
        let pixels = made.enumerate_pixels().zip(asked.image.pixels());
        pixels
            .filter(|((x, _, pixel), before)| (*x < 32) == left && pixel != before)
            .count()
    };
    assert_eq!(changed(false), 0);
    assert!(changed(true) > 32 * 64 / 2, "{}", changed(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lora_has_the_same_effect_by_every_door() {
    let (server, _folder) = lora::server("");
    for asked in [Asked::new(), Asked::lcm()] {
        let plain = by_every_door(&server, &asked).await;
        let styled = |strength| Asked {
            lora: Some(("style", strength)),
            ..asked.clone()
        };
        let strong = by_every_door(&server, &styled(1.5)).await;
        assert!(strong != plain, "it has an effect");
        assert!(
            by_every_door(&server, &styled(0.0)).await == plain,
            "0 leaves it out"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_value_is_refused_by_its_name_at_every_door() {
    let server = TestServer::start();
    for door in DOORS {
        for (meaning, wrong) in MEANINGS.iter().zip(door.wrong) {
            let Some((field, value)) = wrong else { continue };
            let of_mask = *meaning == "mask";
            let asked = if of_mask { Asked::masked() } else { Asked::lcm() };
            let mut body = (door.body)(&asked);
            let fields = body.pointer_mut(door.fields_at).expect("they stand there");
            let value: Value = serde_json::from_str(value).expect("the table has JSON");
            fields[field] = if value == "$long" {
                "a".repeat(40_000).into()
            } else {
                value
            };
            let reply = door.send(&server, of_mask, &body).await;
            assert!(
                (door.pictures)(&reply).is_empty(),
                "{} {meaning}: {reply}",
                door.name
            );
            let named = (door.refused)(&reply);
            assert_eq!(named.as_deref(), Some(field), "{}: {reply}", door.name);
        }
    }
    let jobs = get(&format!("{}/v1/jobs", server.base())).await.json();
    assert_eq!(jobs["jobs"], json!([]), "nothing was made of any of them");
}
