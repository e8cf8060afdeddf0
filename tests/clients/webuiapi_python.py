"""Drives `webuiapi` 0.9.17, an unmodified client of AUTOMATIC1111's web UI, against a running server.

Environment: B, the server's root; IMG, a picture file of 128 by 128 pixels. The server has the checkpoint `demo` and the LoRA `style`.
Ends with 0 when every reply was parsed and every picture is as it should be.
"""

import os
import threading
import urllib.parse

import webuiapi
from PIL import Image, ImageChops, ImageDraw

address = urllib.parse.urlparse(os.environ["B"])
api = webuiapi.WebUIApi(host=address.hostname, port=address.port, sampler="Euler a", steps=4)
api.set_auth("anybody", os.environ.get("KEY", "sk_test"))
scene = Image.open(os.environ["IMG"]).convert("RGB")
SIDE = {"width": 128, "height": 128}

print("text to image")
made = api.txt2img(prompt="a red house", negative_prompt="fog", seed=7, cfg_scale=1, **SIDE)
assert made.image.size == (128, 128) and made.info["all_seeds"] == [7], made.info
print("   ", made.info["infotexts"][0].splitlines()[-1])
assert made.image.info["parameters"] == made.info["infotexts"][0]

print("image to image, a batch of two pictures")
made = api.img2img(images=[scene, scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], prompt="a red house", seed=7, cfg_scale=1,
                   denoising_strength=0.5, **SIDE)
assert len(made.images) == 2 and made.info["all_seeds"] == [7, 8], made.info
again = api.img2img(images=[scene], prompt="a red house", seed=7, cfg_scale=1, denoising_strength=0.5, **SIDE)
assert ImageChops.difference(made.images[0], again.image).getbbox() is None, "the same seed, the same picture"

print("only what is masked")
mask = Image.new("L", scene.size)
ImageDraw.Draw(mask).rectangle((40, 40, 79, 79), fill=255)
made = api.img2img(images=[scene], mask_image=mask, mask_blur=2, inpaint_full_res=True, inpaint_full_res_padding=8,
                   inpainting_fill=1, prompt="a red house", seed=7, cfg_scale=1, denoising_strength=0.9, **SIDE)
changed = ImageChops.difference(made.image, scene).getbbox()
print("    changed within", changed)
assert made.image.size == scene.size and changed is not None
# Five samples of blur reach to each side.
assert changed[0] >= 35 and changed[1] >= 35 and changed[2] <= 85 and changed[3] <= 85, changed

print("a LoRA by its tag, and one that the server does not have")
made = api.txt2img(prompt="a red house <lora:style:0.8>", seed=7, cfg_scale=1, **SIDE)
assert made.info["prompt"].endswith("<lora:style:0.8>")
try:
    api.txt2img(prompt="a red house <lora:more_details:0.8>", **SIDE)
    raise SystemExit("an unknown LoRA was accepted")
except RuntimeError as error:
    print("   ", error)
    assert error.args[0] == 422 and "more_details" in error.args[1] and "prompt" in error.args[1]

print("what is not computed here")
try:
    api.txt2img(prompt="x", enable_hr=True, **SIDE)
    raise SystemExit("a second pass was accepted")
except RuntimeError as error:
    print("   ", error)
    assert error.args[0] == 422 and "enable_hr" in error.args[1]

print("Karras in both spellings")
one = api.txt2img(prompt="x", seed=1, sampler_name="DPM++ 2M Karras", cfg_scale=1, **SIDE)
other = api.txt2img(prompt="x", seed=1, sampler_name="DPM++ 2M", scheduler="Karras", cfg_scale=1, **SIDE)
assert ImageChops.difference(one.image, other.image).getbbox() is None
assert one.info["sampler_name"] == other.info["sampler_name"] == "DPM++ 2M Karras"

print("options, of this caller alone")
print("   ", api.util_get_model_names(), api.util_get_sampler_names()[:4], api.util_get_scheduler_names())
api.util_set_model("demo")
assert api.util_get_current_model().startswith("demo")
api.set_options({"CLIP_stop_at_last_layers": 2})
assert api.get_options()["CLIP_stop_at_last_layers"] == 2
assert api.txt2img(prompt="x", steps=1, cfg_scale=1, **SIDE).info["clip_skip"] == 2
api.set_options({"CLIP_stop_at_last_layers": 1})

print("lists")
assert [lora["name"] for lora in api.get_loras()] == ["style"]
for what in (api.get_sd_vae, api.get_upscalers, api.get_latent_upscale_modes, api.get_hypernetworks, api.get_face_restorers,
             api.get_realesrgan_models, api.get_prompt_styles, api.get_embeddings, api.get_memory, api.get_cmd_flags, api.get_scripts):
    print("   ", what.__name__, what())
assert api.refresh_checkpoints() is None

print("the parameters inside a picture")
inside = api.png_info(made.image)
print("   ", inside.info.splitlines()[0])
assert inside.parameters["Seed"] == "7" and inside.info.startswith("a red house")

print("a picture with longer sides")
assert api.extra_single_image(scene, upscaling_resize=2).image.size == (256, 256)

print("progress and an interrupt")
api.util_wait_for_ready(0.1)
seen = []


def long_one():
    try:
        api.img2img(images=[scene], prompt="x", steps=150, denoising_strength=1.0, cfg_scale=7, width=512, height=512)
        seen.append("it was made")
    except RuntimeError as error:
        seen.append(error.args[0])


caller = threading.Thread(target=long_one)
caller.start()
while True:
    state = api.get_progress()
    if state["state"]["job_count"] == 1 and state["current_image"]:
        break
print("   ", {name: state[name] for name in ("progress", "eta_relative", "state")})
assert 0 < state["progress"] <= 1 and state["state"]["sampling_steps"] == 150
assert api.interrupt() == {}
caller.join()
assert seen == [500], seen
assert api.get_progress()["state"]["job_count"] == 0

print("what nobody does here")
try:
    api.interrogate(scene)
    raise SystemExit("a picture was described")
except RuntimeError as error:
    assert error.args[0] == 501

print("all calls were understood")
