#!/usr/bin/env python3
"""Times image to image with OpenVINO GenAI on the CPU, in f32 where nothing else is asked for, and prints one JSON object.

    python peer_openvino.py export --model models/sd15-lcm --out models/sd15-openvino
    python peer_openvino.py run --model models/sd15-openvino --steps 4
    python peer_openvino.py run --model models/sdxl-openvino --size 1024 --scheduler Euler --steps 2 --precision default

`export` converts a diffusers folder, for which torch, diffusers and transformers must be there; `run` needs none of
them. The parts are OpenVINO GenAI's own figures. It has no UniPC: DDIM stands in, which evaluates the UNet as often.
"""
import argparse
import gc
import json
import pathlib
import shutil
import sys
import time

import openvino

import peer

SCHEDULERS = {"LCM": "LCM", "UniPC": "DDIM", "DDIM": "DDIM", "Euler": "EULER_DISCRETE"}
ANY = openvino.Dimension()


def networks(folder):
    """Name, folder of its configuration, function of tensors, example inputs and output names of each network.

    One network at a time is in memory, of SDXL in f16.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from openvino.frontend.pytorch.patch_model import __make_16bit_traceable as make_half_traceable
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    xl = peer.is_sdxl(folder)
    dtype = torch.float16 if xl else torch.float32

    class Network(torch.nn.Module):
        """A module around the network whose parameters have the names that OpenVINO GenAI expects."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

    class Text(Network):
        def forward(self, input_ids):
            out = self.inner(input_ids, output_hidden_states=xl)
            return out.last_hidden_state, out.pooler_output, *(out.hidden_states or ())

    class Projected(Network):
        def forward(self, input_ids):
            out = self.inner(input_ids, output_hidden_states=True)
            return out.text_embeds, out.last_hidden_state, *out.hidden_states

    class Unet(Network):
        def forward(self, sample, timestep, encoder_hidden_states, text_embeds=None, time_ids=None):
            added = {"text_embeds": text_embeds, "time_ids": time_ids} if xl else None
            return self.inner(sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False)[0]

    class Encoder(Network):
        def forward(self, sample):
            return self.inner._encode(sample)

    class Decoder(Network):
        def forward(self, latent_sample):
            return self.inner.decode(latent_sample, return_dict=False)[0]

    def half(network):
        # The weights stay f16, the tracing computes in f32.
        if xl:
            make_half_traceable(network)
        return network.eval()

    ids = {"input_ids": (torch.ones(1, 77, dtype=torch.long), [ANY, ANY])}
    for part, kind, around in (("text_encoder", CLIPTextModel, Text),
                               ("text_encoder_2", CLIPTextModelWithProjection, Projected))[:1 + xl]:
        text = kind.from_pretrained(folder / part, dtype=dtype)
        states = [f"hidden_states.{layer}" for layer in range(text.config.num_hidden_layers + 1)]
        first = ["last_hidden_state", "pooler_output"] if around is Text else ["text_embeds", "last_hidden_state"]
        yield part, part, around(half(text)), ids, first + states * xl
        del text
    latent, any4 = torch.randn(1, 4, 8, 8), [ANY] * 4
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    yield "vae_encoder", "vae", Encoder(vae), {"sample": (torch.randn(1, 3, 64, 64), any4)}, ["latent_parameters"]
    yield "vae_decoder", "vae", Decoder(vae), {"latent_sample": (latent, [ANY, 4, ANY, ANY])}, ["sample"]
    del vae
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype)
    if unet.config.time_cond_proj_dim:
        sys.exit("a UNet with a guidance embedding is not supported here: build_models.py makes none")
    inputs = {"sample": (latent, any4), "timestep": (torch.tensor([1]), [ANY]),
              "encoder_hidden_states": (torch.randn(1, 77, unet.config.cross_attention_dim), [ANY] * 3)}
    if xl:
        pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        inputs |= {"text_embeds": (torch.randn(1, pooled), [ANY] * 2), "time_ids": (torch.ones(1, 6), [ANY] * 2)}
    yield "unet", "unet", Unet(half(unet)), inputs, ["out_sample"]


def export(args):
    import torch
    from openvino_tokenizers import convert_tokenizer
    from transformers import CLIPTokenizer

    start = time.perf_counter()
    for name, source, module, inputs, outputs in networks(args.model):
        with torch.no_grad():
            model = openvino.convert_model(
                module.eval(), example_input={key: example for key, (example, _) in inputs.items()},
                input=[(key, openvino.PartialShape(shape)) for key, (_, shape) in inputs.items()])
        for port, key in zip(model.inputs, inputs):
            port.get_tensor().set_names({key})
        for port, key in zip(model.outputs, outputs):
            port.get_tensor().set_names({key})
        (args.out / name).mkdir(parents=True, exist_ok=True)
        # As optimum-intel does by default; the CPU computes with what the precision hint says.
        openvino.save_model(model, args.out / name / "openvino_model.xml", compress_to_fp16=True)
        shutil.copy(args.model / source / "config.json", args.out / name / "config.json")
        # Or the next network would come into memory beside this one.
        del model, module
        gc.collect()
    tokenizers = [folder.name for folder in sorted(args.model.glob("tokenizer*"))]
    for name in ("scheduler", *tokenizers):
        shutil.copytree(args.model / name, args.out / name, dirs_exist_ok=True)
    for name in tokenizers:
        tokenizer = CLIPTokenizer.from_pretrained(args.model / name)
        openvino.save_model(convert_tokenizer(tokenizer), args.out / name / "openvino_tokenizer.xml")
    index = json.loads((args.model / "model_index.json").read_text(encoding="utf-8"))
    index.update(vae_encoder=["optimum", "OVModelVaeEncoder"], vae_decoder=["optimum", "OVModelVaeDecoder"])
    (args.out / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    print(json.dumps({"seconds": round(time.perf_counter() - start, 1)}))


def load(args):
    import openvino_genai

    pipe = openvino_genai.Image2ImagePipeline(args.model)
    config = pathlib.Path(args.model) / "scheduler" / "scheduler_config.json"
    kind = getattr(openvino_genai.Scheduler.Type, SCHEDULERS[args.scheduler])
    pipe.set_scheduler(openvino_genai.Scheduler.from_config(str(config), kind))
    pipe.reshape(1, args.size, args.size, args.guidance)
    hint = {"INFERENCE_PRECISION_HINT": "f32"} if args.precision == "f32" else {}
    pipe.compile("CPU", INFERENCE_NUM_THREADS=args.threads, PERFORMANCE_HINT="LATENCY", **hint)
    return pipe


def run(args):
    import numpy
    import openvino_genai

    start = time.perf_counter()
    pipe = load(args)
    loaded = time.perf_counter() - start
    image = openvino.Tensor(numpy.asarray(peer.picture(args.size))[None].copy())

    def make():
        pipe.generate(peer.PROMPT, image, strength=1.0, num_inference_steps=args.steps,
                      guidance_scale=args.guidance, rng_seed=1)
        took = pipe.get_performance_metrics()
        return {"text_encode": sum(took.get_text_encoder_infer_duration().values()) / 1e3,
                "vae_encode": took.get_vae_encoder_infer_duration() / 1e3,
                "evaluations": [float(us) / 1e6 for us in took.raw_metrics.unet_inference_durations],
                "vae_decodes": [took.get_vae_decoder_infer_duration() / 1e3]}

    runs = peer.repeat(args.repeat, make)
    versions = {"openvino": openvino.__version__, "openvino-genai": openvino_genai.__version__}
    peer.report("openvino", args, loaded, runs, versions, ran_scheduler=SCHEDULERS[args.scheduler],
                precision=args.precision)


def main():
    if sys.argv[1:2] == ["export"]:
        parser = argparse.ArgumentParser(description="Converts a diffusers folder for OpenVINO GenAI.")
        parser.add_argument("--model", required=True, type=pathlib.Path, help="diffusers folder with f32 weights")
        parser.add_argument("--out", required=True, type=pathlib.Path, help="folder to write")
        export(parser.parse_args(sys.argv[2:]))
    elif sys.argv[1:2] == ["run"]:
        parser = peer.arguments(__doc__)
        parser.add_argument("--precision", default="f32", choices=["f32", "default"], help="the hint, or none")
        run(parser.parse_args(sys.argv[2:]))
    else:
        sys.exit("usage: peer_openvino.py {export,run} --help")


if __name__ == "__main__":
    main()
