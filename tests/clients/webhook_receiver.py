"""Receives the webhook of a job, and checks it with the published Python library of Standard Webhooks.

Environment: B, the server's root; IMG, a picture file; SECRET, what the server signs with. Ends with 0 when both messages
came, verified, and said what they should.
"""

import base64
import http.server
import json
import os
import queue
import threading
import urllib.request

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["SECRET"])
arrived = queue.Queue()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        arrived.put((dict(self.headers.items()), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=receiver.serve_forever, daemon=True).start()
INIT = base64.b64encode(open(os.environ["IMG"], "rb").read()).decode()


def call(path, body):
    request = urllib.request.Request(
        os.environ["B"] + "/api/v1/enterprise/" + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request))


for track_id in ("order_12345", 12345):
    reply = call("img2img", {
        "key": "ent_key", "model_id": "demo", "prompt": "a red house", "init_image": INIT, "width": 128, "height": 128,
        "num_inference_steps": 3, "seed": 42, "track_id": track_id,
        "webhook": f"http://127.0.0.1:{receiver.server_port}/hook",
    })
    headers, body = arrived.get(timeout=120)
    message = webhook.verify(body, headers)
    print(headers["webhook-id"], message["status"], message["id"], repr(message["track_id"]))
    assert message["status"] == "success" and message["id"] == reply["id"], message
    assert message["track_id"] == track_id and type(message["track_id"]) is type(track_id), message
    assert urllib.request.urlopen(message["output"][0]).read()[:4] == b"\x89PNG", message
    fetched = call(f"fetch/{message['id']}", {"key": "ent_key"})
    assert fetched["output"] == message["output"], (fetched, message)
    for changed in (body.replace(b"success", b"failed!"), body + b" "):
        try:
            webhook.verify(changed, headers)
        except WebhookVerificationError:
            continue
        raise AssertionError("a message that was changed is verified")

print("all calls were understood")
