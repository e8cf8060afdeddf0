#!/usr/bin/env python3
"""Times the networks of one picture one after the other, each alone in memory, and prints one JSON object.

    python one_by_one.py diffusers --model models/sdxl --size 1024 --steps 2
    python one_by_one.py openvino --model models/sdxl-openvino --size 1024 --steps 2 --precision default

For checkpoints that do not fit into the memory as a whole, as Stable Diffusion XL in f32 beside other work. The inputs
have the shapes of a picture and are noise, which does not change the time. `peak_memory_bytes` is that of the part that
takes most, so it is less than a whole pipeline takes; `peak_by_part` has each, load included.
"""
import gc
import pathlib
import sys
import time

import peer


def torch_parts(args):
    """Name of each part, and a function that loads it and gives the call to time."""
    import diffusers
    import torch
    import transformers

    torch.set_grad_enabled(False)
    torch.set_num_threads(args.threads)
    folder, dtype, xl = pathlib.Path(args.model), getattr(torch, args.dtype), peer.is_sdxl(args.model)
    side = args.size // 8

    def text():
        kinds = {"text_encoder": transformers.CLIPTextModel}
        if xl:
            kinds["text_encoder_2"] = transformers.CLIPTextModelWithProjection
        encoders = [kind.from_pretrained(folder / name, dtype=dtype) for name, kind in kinds.items()]
        ids = torch.ones(1, 77, dtype=torch.long)
        return lambda: [encoder(ids, output_hidden_states=True) for encoder in encoders]

    def vae():
        network = diffusers.AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype)
        return network.to(memory_format=torch.channels_last)

    def encode():
        network, picture = vae(), torch.randn(1, 3, args.size, args.size, dtype=dtype)
        return lambda: network.encode(picture)

    def unet():
        network = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype)
        network.to(memory_format=torch.channels_last)
        latent = torch.randn(1, 4, side, side, dtype=dtype)
        context = torch.randn(1, 77, network.config.cross_attention_dim, dtype=dtype)
        added = {"text_embeds": torch.randn(1, 1280, dtype=dtype), "time_ids": torch.full((1, 6), args.size, dtype=dtype)}
        return lambda: network(latent, torch.tensor([500.0]), encoder_hidden_states=context,
                               added_cond_kwargs=added if xl else None)

    def decode():
        network, latent = vae(), torch.randn(1, 4, side, side, dtype=dtype)
        return lambda: network.decode(latent)

    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    return {"text": text, "encode": encode, "unet": unet, "decode": decode}, versions


def openvino_parts(args):
    """As `torch_parts`, of a folder that `peer_openvino.py export` wrote, compiled for the shapes of one picture."""
    import numpy
    import openvino

    core, side = openvino.Core(), args.size // 8
    hint = {"INFERENCE_PRECISION_HINT": "f32"} if args.precision == "f32" else {}
    noise = numpy.random.default_rng(0)

    def load(name, inputs):
        model = core.read_model(pathlib.Path(args.model) / name / "openvino_model.xml")
        kinds = {port.any_name: port for port in model.inputs}
        model.reshape({key: list(shape) for key, shape in inputs.items() if key in kinds})
        feed = {}
        for key, port in kinds.items():
            whole = port.element_type.is_integral()
            shape = tuple(port.shape)
            feed[key] = numpy.ones(shape, "int64") if whole else noise.standard_normal(shape, "float32")
        request = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY",
                                                    **hint}).create_infer_request()
        return lambda: request.infer(feed)

    def text():
        names = ["text_encoder"] + ["text_encoder_2"] * peer.is_sdxl(args.model)
        calls = [load(name, {"input_ids": (1, 77)}) for name in names]
        return lambda: [call() for call in calls]

    def unet():
        width = 2048 if peer.is_sdxl(args.model) else 768
        return load("unet", {"sample": (1, 4, side, side), "timestep": (1,), "encoder_hidden_states": (1, 77, width),
                             "text_embeds": (1, 1280), "time_ids": (1, 6)})

    parts = {"text": text, "encode": lambda: load("vae_encoder", {"sample": (1, 3, args.size, args.size)}),
             "unet": unet, "decode": lambda: load("vae_decoder", {"latent_sample": (1, 4, side, side)})}
    return parts, {"openvino": openvino.__version__}


def main():
    peers = {"diffusers": torch_parts, "openvino": openvino_parts}
    if sys.argv[1:2] not in [[name] for name in peers]:
        sys.exit("usage: one_by_one.py {diffusers,openvino} --help")
    name = sys.argv[1]
    parser = peer.arguments(__doc__)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of diffusers")
    parser.add_argument("--precision", default="f32", choices=["f32", "default"], help="OpenVINO's hint, or none")
    args = parser.parse_args(sys.argv[2:])
    if args.guidance > 1:
        sys.exit("one row only: guidance above 1 is not supported here")
    loaders, versions = peers[name](args)
    seconds, peaks, loaded = {}, {}, 0
    for part, load in loaders.items():
        gc.collect()
        peer.forget_peak()
        start = time.perf_counter()
        call = load()
        loaded += time.perf_counter() - start
        seconds[part] = []
        for _ in range(args.repeat * (args.steps if part == "unet" else 1)):
            start = time.perf_counter()
            call()
            seconds[part].append(time.perf_counter() - start)
        peaks[part] = peer.peak_memory()
        del call
    runs = [{"text_encode": seconds["text"][run], "vae_encode": seconds["encode"][run],
             "evaluations": seconds["unet"][run * args.steps:(run + 1) * args.steps],
             "vae_decodes": [seconds["decode"][run]]} for run in range(args.repeat)]
    for run in runs:
        run["picture"] = run["text_encode"] + run["vae_encode"] + sum(run["evaluations"]) + sum(run["vae_decodes"])
    peer.report(f"{name}, one by one", args, loaded, runs, versions, dtype=args.dtype, precision=args.precision,
                peak_by_part=peaks, peak_memory_bytes=max(peaks.values()))


if __name__ == "__main__":
    main()
