#!/usr/bin/env python3
"""Times image to image with stable-diffusion.cpp on the CPU, with flash attention, and prints one JSON object.

    python peer_sdcpp.py --model models/sd15-lcm --type f16 --steps 4

--model is a diffusers folder, a .safetensors file or a .gguf file; full-size only, because the library knows the
shapes of Stable Diffusion 1.5 by heart. The parts are what the library's log says of them, rounded to 0.01 s there.
It has no UniPC: Euler stands in, which evaluates the UNet as often.
"""
import ctypes
import re
import sys
import time

import stable_diffusion_cpp as sd

import peer

SAMPLERS = {"LCM": "lcm", "UniPC": "euler", "DDIM": "euler", "Euler": "euler"}
PARTS = {
    "vae_encode": re.compile(r"encode_first_stage completed, taking ([\d.]+)s"),
    "text_encode": re.compile(r"get_learned_condition completed, taking ([\d.]+)s"),
    "vae_decodes": re.compile(r"decode_first_stage completed, taking ([\d.]+)s"),
}


def keep_log():
    """The list into which the library writes its log, and what must live as long as it does."""
    lines = []

    @sd.sd_log_callback
    def on_log(_level, text, _data):
        lines.append(text.decode("utf-8", errors="replace"))

    sd.sd_set_log_callback(on_log, ctypes.c_void_p(0))
    return lines, on_log


def main():
    parser = peer.arguments(__doc__)
    parser.add_argument("--type", default="f16", help="weight type: f32, f16, q8_0, q4_0 ...")
    args = parser.parse_args()
    lines, on_log = keep_log()
    start = time.perf_counter()
    model = sd.StableDiffusion(model_path=args.model, wtype=args.type, n_threads=args.threads,
                               vae_decode_only=False, diffusion_flash_attn=True, verbose=True)
    # The constructor puts its own callback there.
    sd.sd_set_log_callback(on_log, ctypes.c_void_p(0))
    loaded = time.perf_counter() - start
    image = peer.picture(args.size)

    def make():
        lines.clear()
        steps = []
        made = model.generate_image(
            prompt=peer.PROMPT, init_image=image, width=args.size, height=args.size,
            sample_method=SAMPLERS[args.scheduler], scheduler="discrete", sample_steps=args.steps, strength=1.0,
            cfg_scale=args.guidance, seed=1,
            progress_callback=lambda step, _steps, seconds: steps.append(seconds) if step else None)
        if not made:
            sys.exit("stable-diffusion.cpp made no picture:\n" + "".join(lines[-20:]))
        text = "".join(lines)
        logged = {part: [float(number) for number in pattern.findall(text)] for part, pattern in PARTS.items()}
        return {"text_encode": sum(logged["text_encode"]), "vae_encode": sum(logged["vae_encode"]),
                "evaluations": steps, "vae_decodes": logged["vae_decodes"]}

    runs = peer.repeat(args.repeat, make)
    versions = {"stable-diffusion-cpp-python": sd.__version__}
    peer.report("sdcpp", args, loaded, runs, versions, ran_scheduler=SAMPLERS[args.scheduler], weights=args.type,
                system=sd.sd_get_system_info().decode())


if __name__ == "__main__":
    main()
