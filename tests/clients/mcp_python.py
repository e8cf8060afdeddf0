"""Drives the official, unmodified Python SDK `mcp` 2.3.0 against a running server: as it comes, which asks
for the newest protocol first, and by the handshake alone.

Environment: B, the server's root; IMG, a picture file. Ends with 0 when every reply was parsed and every picture opens.
"""

import asyncio
import base64
import io
import json
import os
import urllib.request

from mcp import Client, MCPError
from PIL import Image

IMG = os.environ["IMG"]
SIZE = Image.open(IMG).size
FEW = {"prompt": "a red house", "steps": 2, "seed": 7}


def pictures(result):
    assert not result.is_error, result
    found = []
    for block in result.content:
        if block.type == "image":
            picture = Image.open(io.BytesIO(base64.b64decode(block.data)))
            assert block.mime_type == f"image/{picture.format.lower()}", block.mime_type
            found.append(picture)
    print("   ", [picture.size for picture in found], result.structured_content)
    return found


async def refused(client, tool, arguments, *words):
    result = await client.call_tool(tool, arguments)
    text = result.content[0].text
    print("   ", text)
    assert result.is_error and all(word in text for word in words), result


async def talk(mode):
    async with Client(os.environ["B"] + "/mcp", mode=mode) as client:
        print("the tools, by", client.protocol_version)
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["generate_image", "job_status", "cancel_job", "list_models"], tools
        generate = tools[0].input_schema
        assert generate["required"] == ["prompt"] and generate["properties"]["n"]["maximum"] == 10, generate

        print("a picture from words")
        result = await client.call_tool("generate_image", {**FEW, "size": "64x64", "n": 2})
        assert [picture.size for picture in pictures(result)] == [(64, 64)] * 2
        links = result.structured_content["images"]
        assert [link["seed"] for link in links] == [7, 8], links

        print("a picture that is changed, and one behind a link")
        image = base64.b64encode(open(IMG, "rb").read()).decode()
        result = await client.call_tool("generate_image", {**FEW, "image": image, "output_format": "webp"})
        (picture,) = pictures(result)
        assert picture.size == SIZE and picture.format == "WEBP"
        link = result.structured_content["images"][0]["url"]
        result = await client.call_tool("generate_image", {**FEW, "image": link, "response_format": "url"})
        assert pictures(result) == [] and result.structured_content["images"][0]["url"].startswith(os.environ["B"])

        print("a job that nobody waits for")
        arguments = {**FEW, "size": "1024x1024", "steps": 150, "wait": False}
        job = {"id": (await client.call_tool("generate_image", arguments)).structured_content["job_id"]}
        status = (await client.call_tool("job_status", job)).structured_content
        assert status["state"] in ("queued", "running"), status
        cancelled = (await client.call_tool("cancel_job", job)).structured_content
        assert cancelled["state"] == "cancelled", cancelled

        print("a call that is given up")
        arguments = {**FEW, "prompt": f"given up {mode}", "size": "1024x1024", "steps": 150}
        try:
            await client.call_tool("generate_image", arguments, read_timeout_seconds=2)
            raise SystemExit("that was quick")
        except MCPError as error:
            print("   ", error)
        while True:
            jobs = json.load(urllib.request.urlopen(os.environ["B"] + "/v1/jobs?limit=1"))["jobs"]
            if jobs[0]["recipe"]["prompt"] == arguments["prompt"] and jobs[0]["state"] == "cancelled":
                break
            await asyncio.sleep(0.1)

        print("the models")
        models = (await client.call_tool("list_models")).structured_content["models"]
        assert models[0]["name"] == "demo" and models[0]["available"], models

        print("what is refused")
        await refused(client, "generate_image", {}, "prompt is required")
        await refused(client, "generate_image", {**FEW, "n": 11}, "n must be", "10")
        await refused(client, "generate_image", {**FEW, "model": "dmeo"}, "model", "`demo`")
        await refused(client, "generate_image", {**FEW, "mask": image}, "mask needs an image")
        await refused(client, "job_status", {"id": "job_1"}, "id must be")
        await refused(client, "cancel_job", {"id": "job_" + "0" * 32}, "there is no job")


for mode in ("auto", "legacy"):
    asyncio.run(talk(mode))
print("all calls were understood")
