"""Drives the official, unmodified Python client `modelslab-py` 0.2.3, sync and async, against a running server.

Environment: B, the server's root; IMG, a picture file. Ends with 0 when every reply was as the client needs it and every
picture opens.
"""

import asyncio
import base64
import io
import os
import urllib.request

from modelslab_py.core.apis.community import Community
from modelslab_py.core.client import Client
from modelslab_py.schemas.community import Image2Image, Inpainting
from PIL import Image

KEY = os.environ.get("MODELSLAB_API_KEY", "ent_key")
client = Client(api_key=KEY, fetch_retry=30, fetch_timeout=2)
# The base URL is an attribute, and has to be set before the API object is made: the only line that a user has to change.
client.base_url = os.environ["B"] + "/api/"
enterprise = Community(client=client, enterprise=True)

INIT = base64.b64encode(open(os.environ["IMG"], "rb").read()).decode()
side = io.BytesIO()
half = Image.new("L", (128, 128), 0)
half.paste(255, (64, 0, 128, 128))
half.save(side, "PNG")
MASK = base64.b64encode(side.getvalue()).decode()
common = dict(
    prompt="women playing tennis", model_id="demo", init_image=INIT, negative_prompt="blur", width=128, height=128,
    samples=1, num_inference_steps=3, guidance_scale=7.5, seed=42, scheduler="UniPCMultistepScheduler",
    safety_checker="yes", enhance_prompt="yes", clip_skip=2,
)


def done(reply):
    """What every user of this client has to write: a call may be answered before its pictures are made."""
    return enterprise.fetch(str(reply["id"])) if reply["status"] == "processing" else reply


def look(reply, count=1, text=False):
    assert reply["status"] == "success", reply
    assert len(reply["output"]) == count, reply
    for address in reply["output"]:
        data = urllib.request.urlopen(address).read()
        picture = Image.open(io.BytesIO(base64.b64decode(data) if text else data))
        assert picture.size == (128, 128) and picture.format == "PNG", picture
        print("   ", reply["id"], address.split("?")[0], picture.size, len(data), "bytes")
    assert isinstance(reply["id"], int) and reply["meta"]["seed"] == 42, reply
    return reply


print("image to image")
first = look(done(enterprise.image_to_image(Image2Image(**common))))
assert "warning" not in first, first["warning"]

print("extras that the schema does not have pass through: strength, base64, two samples")
look(done(enterprise.image_to_image(Image2Image(**{**common, "samples": 2}, strength=0.6, base64="yes"))), 2, text=True)

print("inpainting")
painted = look(done(enterprise.inpainting(Inpainting(**common, mask_image=MASK))))
before = Image.open(os.environ["IMG"]).convert("RGB")
after = Image.open(io.BytesIO(urllib.request.urlopen(painted["output"][0]).read()))
if before.size == after.size:
    assert before.crop((0, 0, 64, 128)).tobytes() == after.crop((0, 0, 64, 128)).tobytes(), "the kept half has changed"

print("fetch by its number")
assert enterprise.fetch(str(first["id"]))["output"] == first["output"]

print("errors come as replies")
for change, field in [({"samples": 9}, "samples"), ({"scheduler": "NoSuchScheduler"}, "scheduler")]:
    reply = enterprise.image_to_image(Image2Image(**{**common, **change}))
    assert reply["status"] == "error" and field in reply["message"], reply
    print("   ", reply["message"])
reply = enterprise.image_to_image(Image2Image(**{**common, "model_id": "no-such-model"}))
assert reply["status"] == "error" and "no-such-model" in reply["message"], reply

print("system calls:", enterprise.system_details(), enterprise.clear_cache(), enterprise.clear_queue())
print("   ", enterprise.update())


async def go():
    async with Client(api_key=KEY, fetch_retry=5, fetch_timeout=60) as other:
        other.base_url = os.environ["B"] + "/api/"
        reply = await Community(client=other, enterprise=True).async_image_to_image(Image2Image(**common))
        assert reply["status"] in ("success", "processing"), reply
        print("async:", reply["status"], reply["output"])


asyncio.run(go())
# The last call: the server may come back at another port.
restarted = enterprise.restart()
assert restarted["status"] == "success", restarted
print("restart:", restarted)
print("all calls were understood")
