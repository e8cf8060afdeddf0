"""Drives the official, unmodified Python client `modelslab-py` 0.2.3 against a server that holds no call: every reply is
`processing` first, and becomes `success` by `fetch`.

Environment: B, the server's root; IMG, a picture file. Ends with 0 when it did.
"""

import base64
import io
import os
import urllib.request

from modelslab_py.core.apis.community import Community
from modelslab_py.core.client import Client
from modelslab_py.schemas.community import Image2Image
from PIL import Image

client = Client(api_key="ent_key", fetch_retry=60, fetch_timeout=1)
client.base_url = os.environ["B"] + "/api/"
enterprise = Community(client=client, enterprise=True)
INIT = base64.b64encode(open(os.environ["IMG"], "rb").read()).decode()

for steps in (3, 20):
    reply = enterprise.image_to_image(Image2Image(
        prompt="women playing tennis", model_id="demo", init_image=INIT, width=128, height=128, samples=1,
        num_inference_steps=steps, guidance_scale=7.5, seed=42, scheduler="UniPCMultistepScheduler",
    ))
    assert reply["status"] == "processing" and reply["output"] == [], reply
    assert isinstance(reply["id"], int) and 100_000_000 <= reply["id"] < 2**31, reply
    assert reply["eta"] >= 1 and reply["message"] == reply["messege"], reply
    assert str(reply["id"]) in reply["fetch_result"] and len(reply["future_links"]) == 1, reply
    # The client's own loop.
    done = enterprise.fetch(str(reply["id"]))
    assert done["status"] == "success" and done["id"] == reply["id"], done
    assert done["output"] == reply["future_links"], (reply, done)
    data = urllib.request.urlopen(done["output"][0]).read()
    assert Image.open(io.BytesIO(data)).size == (128, 128)
    # The address that the reply names, as others call it: with POST and with GET.
    for body in (b'{"key": "ent_key"}', None):
        request = urllib.request.Request(reply["fetch_result"], body)
        assert b'"success"' in urllib.request.urlopen(request).read()
    print(reply["id"], "eta", reply["eta"], "done", done["generationTime"])

print("all calls were understood")
