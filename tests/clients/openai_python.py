"""Drives the official, unmodified Python client `openai` 3.57.0 against a running server.

Environment: B, the root of a server that knows the key below; IMG, a picture file. Ends with 0 when every reply was parsed and every picture opens.
"""

import base64
import io
import json
import os
import threading
import time
import urllib.parse
import urllib.request

import openai
from PIL import Image, ImageChops

# The base URL is the only thing that a user has to change.
KEY = "sk_openai_0123456789"
client = openai.OpenAI(base_url=os.environ["B"] + "/v1", api_key=KEY)
IMG = os.environ["IMG"]
SOURCE = Image.open(IMG).convert("RGB")
FEW = {"steps": 2, "seed": 7}


def opened(item, kind="PNG"):
    data = base64.b64decode(item.b64_json)
    picture = Image.open(io.BytesIO(data))
    assert picture.format == kind, picture.format
    print("   ", picture.size, picture.format, len(data), "bytes")
    return picture.convert("RGB")


def mask():
    """Transparent in the left half, which is what is edited."""
    picture = Image.new("RGBA", SOURCE.size, (0, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, SOURCE.width // 2, SOURCE.height))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return ("mask.png", file.getvalue(), "image/png")


print("an edit of a file")
reply = client.images.edit(model="demo", image=open(IMG, "rb"), prompt="a red house", extra_body=FEW)
assert opened(reply.data[0]).size == SOURCE.size and reply.size == "%dx%d" % SOURCE.size, reply
assert reply.output_format == "png" and reply.background == "opaque" and reply.created > 1_000_000_000, reply
assert reply.usage.total_tokens == 0, reply.usage

print("an edit with a mask: what it keeps comes back pixel for pixel")
reply = client.images.edit(model="gpt-image-1", image=[open(IMG, "rb")], mask=mask(), prompt="a red house", n=2,
                           quality="low", input_fidelity="low", extra_body=FEW)
assert len(reply.data) == 2, reply
for item in reply.data:
    half = (SOURCE.width // 2, 0, SOURCE.width, SOURCE.height)
    changed = ImageChops.difference(opened(item), SOURCE)
    assert changed.crop(half).getbbox() is None, changed.crop(half).getbbox()
    assert changed.getbbox() is not None

print("an edit with LoRAs that the server does not have")
try:
    client.images.edit(image=open(IMG, "rb"), prompt="x", extra_body={"loras": [{"model": "none_such", "strength": 0.5}]})
    raise SystemExit("an unknown LoRA was accepted")
except openai.NotFoundError as error:
    print("   ", error)
    assert error.param == "loras" and error.code == "model_not_found" and "none_such" in error.message, error.body
    assert error.request_id, error.response.headers

print("a picture from words, as a JPEG file")
reply = client.images.generate(prompt="a red house", model="demo", size="128x64", output_format="jpeg", output_compression=80,
                               background="auto", moderation="low", user="somebody", extra_body=FEW)
assert opened(reply.data[0], "JPEG").size == (128, 64)

print("the same as a link")
reply = client.images.generate(prompt="a red house", model="dall-e-3", size="64x64", extra_body=FEW)
data = urllib.request.urlopen(reply.data[0].url).read()
assert Image.open(io.BytesIO(data)).size == (64, 64) and reply.data[0].b64_json is None

print("variations")
reply = client.images.create_variation(image=open(IMG, "rb"), n=2, response_format="b64_json", size="256x256", extra_body=FEW)
assert [opened(item).size for item in reply.data] == [(256, 256)] * 2

print("a stream with previews")
# Long enough that there is time for one.
events = list(client.images.generate(prompt="a red house", model="demo", size="256x256", stream=True, partial_images=3,
                                     extra_body={"steps": 60, "seed": 7}))
kinds = [event.type for event in events]
print("   ", kinds)
assert kinds[-1] == "image_generation.completed" and kinds.count(kinds[-1]) == 1, kinds
previews = events[:-1]
assert 1 <= len(previews) <= 3 and {event.type for event in previews} == {"image_generation.partial_image"}, kinds
assert [event.partial_image_index for event in previews] == list(range(len(previews)))
for event in previews:
    opened(event, "JPEG")
assert opened(events[-1]).size == (256, 256) and events[-1].usage.output_tokens == 0

print("a stream of an edit, without previews")
with client.images.edit(image=open(IMG, "rb"), prompt="x", n=2, stream=True, extra_body=FEW) as stream:
    events = list(stream)
assert [event.type for event in events] == ["image_edit.completed"] * 2, events

print("what is refused")
for wrong, param in [({"n": 11}, "n"), ({"size": "100x100"}, "size"), ({"background": "transparent"}, "background"),
                     ({"output_format": "gif"}, "output_format"), ({"model": "dmeo"}, "model")]:
    try:
        client.images.generate(**{"prompt": "x", "model": "demo", **wrong})
        raise SystemExit(f"{wrong} was accepted")
    except (openai.BadRequestError, openai.NotFoundError) as error:
        print("   ", error.status_code, error.param, error.message)
        assert error.param == param and error.type == "invalid_request_error", error.body
try:
    client.images.edit(image=[open(IMG, "rb"), open(IMG, "rb")], prompt="x")
    raise SystemExit("two pictures were accepted")
except openai.BadRequestError as error:
    assert error.param == "image", error.body

print("a job that is cancelled is not made again, though the client sends most failures again")


def ours(method="GET", path="", **query):
    address = f"{os.environ['B']}/v1/jobs{path}?{urllib.parse.urlencode(query)}"
    request = urllib.request.Request(address, method=method, headers={"Authorization": f"Bearer {KEY}"})
    return json.load(urllib.request.urlopen(request))


def cancel():
    while not (running := ours(state="queued,running")["jobs"]):
        time.sleep(0.02)
    ours("DELETE", "/" + running[0]["id"])


before = len(ours(limit=200)["jobs"])
canceller = threading.Thread(target=cancel)
canceller.start()
try:
    client.images.generate(prompt="x", model="demo", size="1024x1024", extra_body={"steps": 150})
    raise SystemExit("a cancelled job has pictures")
except openai.InternalServerError as error:
    print("   ", error)
    assert error.response.headers["x-job-id"].startswith("job_"), error.response.headers
canceller.join()
after = len(ours(limit=200)["jobs"])
assert after == before + 1, (before, after)

print("the models")
models = list(client.models.list())
assert [model.id for model in models] == ["demo"] and models[0].object == "model", models
assert client.models.retrieve("demo").owned_by == "pentimento"
try:
    client.models.retrieve("dmeo")
    raise SystemExit("there is no such model")
except openai.NotFoundError as error:
    print("   ", error)

print("a key that is none of the server's")
stranger = client.with_options(api_key="sk_wrong")
for call in (
    stranger.models.list,
    lambda: stranger.models.retrieve("demo"),
    lambda: stranger.images.generate(prompt="x", model="demo"),
):
    try:
        call()
        raise SystemExit("it was let in")
    except openai.AuthenticationError as error:
        print("   ", error)

print("all calls were understood")
