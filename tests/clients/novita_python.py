"""Drives the official, unmodified Python client `novita-client` (0.5.7 or 0.4.12) against a running server.

Environment: B, the server's root; IMG, a picture file. Ends with 0 when every reply was parsed and every picture opens.
"""

import io
import os
import urllib.request

from novita_client import LCMLoRA, NovitaClient
from novita_client.exceptions import NovitaResponseError
from PIL import Image

# The second argument is the base URL: the only line that a user has to change.
client = NovitaClient(os.environ.get("NOVITA_API_KEY", "sk_test"), os.environ["B"])
IMG = os.environ["IMG"]
SIZE = Image.open(IMG).size


def look(reply, count, kind="png"):
    assert len(reply.images) == count, reply
    for item in reply.images:
        data = urllib.request.urlopen(item.image_url).read()
        picture = Image.open(io.BytesIO(data))
        assert picture.size == SIZE, (picture.size, SIZE)
        assert picture.format == kind.upper() and item.image_type == kind, (picture.format, item)
        assert 3500 < int(item.image_url_ttl) <= 3600, item
        print("   ", item.image_url.split("?")[0], item.image_url_ttl, item.image_type, picture.size, len(data), "bytes")


print("the README's call")
look(client.lcm_img2img(model_name="demo", prompt="1 house", image=IMG, steps=4, guidance_scale=1, clip_skip=1, image_num=1), 1)

print("minimal call: null for seed, steps, guidance_scale, sd_vae and the rest")
look(client.lcm_img2img(model_name="demo", prompt="x", image=IMG, image_num=1), 1)

print("more arguments, two pictures, a picture object instead of a file")
look(client.lcm_img2img(model_name="demo.safetensors", prompt="a sunflower", negative_prompt="blur", image=Image.open(IMG),
                        steps=3, guidance_scale=0, image_num=2, clip_skip=1), 2)

print("a LoRA that the server does not have")
try:
    client.lcm_img2img(model_name="demo", prompt="x", image=IMG, image_num=1,
                       loras=[LCMLoRA(model_name="more_details_59655", strenth=0.5)])
    raise SystemExit("an unknown LoRA was accepted")
except NovitaResponseError as error:
    print("   ", error)
    assert "MODEL_NOT_FOUND" in str(error) and "more_details_59655" in str(error)

print("steps out of range")
try:
    client.lcm_img2img(model_name="demo", prompt="x", image=IMG, image_num=1, steps=9)
    raise SystemExit("9 steps were accepted")
except NovitaResponseError as error:
    print("   ", error)
    assert "400" in str(error) and "steps must be" in str(error)

print("the model lists")
# 0.4.12 has only the older list.
if hasattr(client, "query_model_v3"):
    page = client.query_model_v3(visibility="public", limit="2", types="checkpoint", query="dem")
    print("   ", page)
    assert [model.sd_name_in_api for model in page.models] == ["demo"]
if hasattr(client, "models_v3"):
    models = list(client.models_v3())
    print("   ", len(models), "models")
    assert len(models) == 1

if hasattr(client, "user_info"):
    print("the user:", client.user_info())
if hasattr(client, "models"):
    old = list(client.models())
    print("the old list:", len(old))

print("all calls were understood")
