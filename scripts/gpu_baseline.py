"""The same shapes by diffusers on the same card, in the same run: eager, then compiled with channels last, in f16."""

import argparse
import json
import statistics
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

SD15 = {
    "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2,
}
SMALL = {**SD15, "block_out_channels": (32, 32, 32, 32), "sample_size": 8, "cross_attention_dim": 32, "attention_head_dim": 4}


def seconds(device, run, count):
    """The median of `count` runs, after two that warm up."""
    times = []
    for number in range(count + 2):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        if number >= 2:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    device = "cpu" if args.rehearse else "cuda"
    dtype = torch.float32 if args.rehearse else torch.float16
    config = SMALL if args.rehearse else SD15
    side, runs = (8, 1) if args.rehearse else (64, 20)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**config).to(device, dtype).eval()
    found = []

    def measure(name, network):
        for rows in (1, 2, 8):
            sample = torch.randn(rows, 4, side, side, device=device, dtype=dtype)
            text = torch.randn(rows, 77, config["cross_attention_dim"], device=device, dtype=dtype)
            step = torch.full((rows,), 500, device=device)
            with torch.inference_mode():
                took = seconds(device, lambda: network(sample, step, encoder_hidden_states=text), runs)
            found.append({"network": name, "rows": rows, "seconds": took})
            print(f"{name}, {rows} rows: {took * 1e3:.2f} ms, {1 / took:.1f} a second")
            # After each, so that what was measured is there when the time is up.
            with open(args.out, "w", encoding="utf-8") as file:
                json.dump(found, file, indent=1)

    measure("unet eager", unet)
    if not args.rehearse:
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ).to(device, dtype).eval()
        latent = torch.randn(1, 4, side, side, device=device, dtype=dtype)
        with torch.inference_mode():
            took = seconds(device, lambda: vae.decode(latent), 10)
        found.append({"network": "vae decode eager", "rows": 1, "seconds": took})
        print(f"vae decode eager: {took * 1e3:.2f} ms")
        unet.to(memory_format=torch.channels_last)
        measure("unet compiled, channels last", torch.compile(unet, mode="max-autotune-no-cudagraphs"))


main()
