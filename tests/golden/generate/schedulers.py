#!/usr/bin/env python3
"""Records what diffusers' schedulers do in an img2img run, with an analytic stand-in for the UNet.

    python schedulers.py [name ...]

One file per scheduler, `schedulers/<name>.safetensors`. `about.cases` lists for every case the scheduler_config.json,
what the request chose, steps, strength and seed; the tensors of a case are its timesteps, the model input and the
latents of every evaluation, and the start latents. The stand-in is a smooth function that the tests compute too, so no
prediction is stored. The run is the one of StableDiffusionImg2ImgPipeline: the configuration with the two keys that
its constructor sets, `set_timesteps`, the end of the list by strength, `add_noise`, and one generator for all noise.
"""
import inspect
import json
import math
import sys

import diffusers
import torch
from diffusers.utils.torch_utils import randn_tensor

from golden_file import quiet_and_repeatable, save_golden

SHAPE = (1, 4, 5, 6)
SD15 = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
# What StableDiffusionImg2ImgPipeline's constructor sets on any scheduler.
PIPELINE = {"steps_offset": 1, "clip_sample": False}

RUNS = [(1, 1.0), (4, 0.3), (4, 0.7), (8, 1.0), (20, 0.3), (20, 0.7), (20, 1.0)]
PREDICTIONS = [({"prediction_type": p}, 8, 0.7) for p in ("v_prediction", "sample")]
SPACINGS = [({"timestep_spacing": s}, 8, 0.7) for s in ("linspace", "leading", "trailing")]
BETAS = [({"beta_schedule": b}, 4, 0.7) for b in ("linear", "squaredcos_cap_v2")]
ZERO_SNR = [({"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}, 6, 1.0)]
KARRAS = [({"use_karras_sigmas": True}, 8, 0.7), ({"use_karras_sigmas": True, "prediction_type": "v_prediction"}, 12, 1.0)]
LEVELS = [({"use_exponential_sigmas": True}, 6, 0.7), ({"use_beta_sigmas": True}, 6, 0.7)]
THRESHOLD = [({"thresholding": True, "sample_max_value": 1.5}, 6, 0.7)]

# Scheduler name, then its cases beyond RUNS: changes to the configuration, steps, strength.
SCHEDULERS = {
    "DDIM": PREDICTIONS + SPACINGS + BETAS + ZERO_SNR + THRESHOLD,
    "LCM": PREDICTIONS + BETAS + ZERO_SNR + THRESHOLD + [({"original_inference_steps": 100}, 8, 0.7), ({}, 50, 0.2)],
    "EulerDiscrete": PREDICTIONS + SPACINGS + BETAS + ZERO_SNR + KARRAS + LEVELS + [
        ({"final_sigmas_type": "sigma_min"}, 6, 0.7),
        ({"interpolation_type": "log_linear"}, 6, 0.7),
        ({"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}, 6, 0.7),
    ],
}


def model(sample, timestep):
    """The stand-in for the UNet: bounded, smooth, and different at every timestep and position."""
    wave = math.cos(float(timestep) / 150)
    return 0.9 * sample / (1 + 0.25 * sample * sample) + 0.3 * wave * torch.roll(sample, 1, -1) + 0.1 * wave


def img2img(scheduler, clean, steps, strength, generator):
    """StableDiffusionImg2ImgPipeline from `set_timesteps` to the last latents."""
    scheduler.set_timesteps(steps)
    # Where the product is below 1 the pipeline fails; one step is what we define.
    last = max(min(int(steps * strength), steps), 1)
    begin = (steps - last) * scheduler.order
    timesteps = scheduler.timesteps[begin:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    noise = randn_tensor(clean.shape, generator=generator)
    latents = scheduler.add_noise(clean, noise, timesteps[:1])
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": generator} if takes_generator else {}
    start, inputs, outputs = latents, [], []
    for timestep in timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(model(scaled, timestep), timestep, latents, **extra).prev_sample
        inputs.append(scaled)
        outputs.append(latents)
    return start, timesteps, inputs, outputs


def record(name, clean):
    tensors, cases = {"clean": clean}, []
    every = [({}, steps, strength) for steps, strength in RUNS] + SCHEDULERS[name]
    # The class's own defaults, where the file is silent.
    every.append(({"_bare": True}, 6, 0.6))
    for number, (changes, steps, strength) in enumerate(every):
        changes = dict(changes)
        config = {**({} if changes.pop("_bare", False) else SD15), **PIPELINE, **changes}
        seed = 1000 + number
        scheduler = getattr(diffusers, name + "Scheduler").from_config(dict(config))
        generator = torch.Generator("cpu").manual_seed(seed)
        start, timesteps, inputs, latents = img2img(scheduler, clean, steps, strength, generator)
        assert torch.isfinite(latents[-1]).all(), (name, changes)
        tensors[f"{number}.timesteps"] = timesteps.to(torch.float64)
        tensors[f"{number}.start"] = start
        tensors[f"{number}.inputs"] = torch.cat(inputs)
        tensors[f"{number}.latents"] = torch.cat(latents)
        cases.append({"config": config, "changes": json.dumps(changes), "steps": steps, "strength": strength, "seed": seed})
    save_golden(f"schedulers/{name}.safetensors", tensors, "schedulers.py", cases=cases, kind=name)


def record_alphas_cumprod():
    cases = {
        "linear": {},
        "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        "trained": {"trained_betas": [0.001 * (i + 1) for i in range(50)]},
        "cosine": {"beta_schedule": "squaredcos_cap_v2"},
        "laplace": {"beta_schedule": "laplace", "num_train_timesteps": 100},
        "sigmoid": {"beta_schedule": "sigmoid"},
        "zero_snr": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": True},
    }
    tensors = {name: diffusers.DDPMScheduler(**config).alphas_cumprod for name, config in cases.items()}
    save_golden("schedulers/alphas_cumprod.safetensors", tensors, "schedulers.py", cases=cases)


def main():
    quiet_and_repeatable()
    diffusers.utils.logging.set_verbosity_error()
    clean = torch.randn(SHAPE, generator=torch.Generator("cpu").manual_seed(7)) * 0.8
    names = sys.argv[1:] or ["alphas_cumprod", *SCHEDULERS]
    for name in names:
        if name == "alphas_cumprod":
            record_alphas_cumprod()
        else:
            record(name, clean)


if __name__ == "__main__":
    main()
