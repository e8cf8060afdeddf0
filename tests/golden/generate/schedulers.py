#!/usr/bin/env python3
"""Records what diffusers' schedulers do in an img2img run, with an analytic stand-in for the UNet.

    python schedulers.py [name ...]

One file per scheduler, `schedulers/<name>.safetensors`, and one more for the LCM pipeline's rule of strength. `about.cases` lists for every case the scheduler_config.json,
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

# Asked for by the request and not by the file: `_karras`, `_algorithm`.
ASKED_KARRAS = [({"_karras": True}, 8, 0.7), ({"_karras": True}, 5, 1.0), ({"_karras": True, "beta_schedule": "squaredcos_cap_v2"}, 6, 1.0)]
SIGMA_MIN = [({"final_sigmas_type": "sigma_min"}, 6, 0.7), ({"final_sigmas_type": "sigma_min", "use_karras_sigmas": True}, 6, 1.0)]
ORDERS = [({"solver_order": order}, steps, 1.0) for order in (1, 3) for steps in (7, 16)] + [({"solver_order": 3}, 9, 0.5)]
# Scheduler name, then its cases beyond RUNS: changes to the configuration, steps, strength.
SCHEDULERS = {
    "DDPM": PREDICTIONS + SPACINGS + BETAS + ZERO_SNR + THRESHOLD + [
        ({"variance_type": v}, 6, 0.7) for v in ("fixed_small_log", "fixed_large")
    ],
    "DDIM": PREDICTIONS + SPACINGS + BETAS + ZERO_SNR + THRESHOLD,
    "PNDM": PREDICTIONS[:1] + SPACINGS + BETAS + [
        ({"skip_prk_steps": False}, 4, 1.0),
        ({"skip_prk_steps": False}, 10, 1.0),
        ({"skip_prk_steps": False}, 20, 0.4),
        ({"skip_prk_steps": False, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}, 10, 0.8),
        ({"set_alpha_to_one": True}, 6, 0.7),
    ],
    "LMSDiscrete": PREDICTIONS + SPACINGS + BETAS + KARRAS + LEVELS + ASKED_KARRAS,
    "EulerDiscrete": PREDICTIONS + SPACINGS + BETAS + ZERO_SNR + KARRAS + LEVELS + [
        ({"final_sigmas_type": "sigma_min"}, 6, 0.7),
        ({"interpolation_type": "log_linear"}, 6, 0.7),
        ({"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}, 6, 0.7),
        ({"timestep_type": "continuous", "prediction_type": "v_prediction"}, 6, 0.7),
    ] + ASKED_KARRAS,
    "EulerAncestralDiscrete": PREDICTIONS[:1] + SPACINGS + BETAS + ZERO_SNR,
    "HeunDiscrete": PREDICTIONS + SPACINGS + BETAS + KARRAS + LEVELS + ASKED_KARRAS + [({"beta_schedule": "exp"}, 6, 0.7)],
    "KDPM2Discrete": PREDICTIONS[:1] + SPACINGS + BETAS + KARRAS + LEVELS + ASKED_KARRAS,
    "KDPM2AncestralDiscrete": PREDICTIONS[:1] + SPACINGS + BETAS + KARRAS + LEVELS + ASKED_KARRAS,
    "DPMSolverMultistep": PREDICTIONS + SPACINGS + BETAS + ZERO_SNR + KARRAS + LEVELS + THRESHOLD + ASKED_KARRAS + SIGMA_MIN + ORDERS + [
        ({"_algorithm": algorithm, "solver_type": solver}, steps, strength)
        for algorithm in ("dpmsolver", "sde-dpmsolver", "sde-dpmsolver++", "dpmsolver++")
        for solver in ("midpoint", "heun")
        for steps, strength in ((6, 1.0), (20, 0.4))
    ] + [
        ({"_algorithm": "dpmsolver", "solver_order": 3}, 16, 0.7),
        ({"_algorithm": "sde-dpmsolver++", "solver_order": 3}, 16, 0.7),
        ({"_algorithm": "dpmsolver", "prediction_type": "v_prediction"}, 8, 0.7),
        ({"_algorithm": "dpmsolver", "prediction_type": "sample", "thresholding": True}, 8, 0.7),
        ({"use_lu_lambdas": True}, 6, 0.7),
        ({"euler_at_final": True, "final_sigmas_type": "sigma_min"}, 16, 0.5),
        ({"lower_order_final": False}, 6, 1.0),
        ({"lambda_min_clipped": -5.1, "beta_schedule": "squaredcos_cap_v2"}, 6, 1.0),
        ({"solver_type": "bh2", "algorithm_type": "deis", "final_sigmas_type": "sigma_min"}, 6, 0.7),
    ],
    "DPMSolverSinglestep": PREDICTIONS + BETAS + KARRAS + LEVELS + THRESHOLD + ASKED_KARRAS + SIGMA_MIN + ORDERS + [
        ({"_algorithm": algorithm, "solver_type": solver, "solver_order": order}, steps, strength)
        for algorithm in ("dpmsolver", "sde-dpmsolver++", "dpmsolver++")
        for solver in ("midpoint", "heun")
        for order, steps, strength in ((2, 8, 1.0), (3, 12, 0.6))
    ] + [({"solver_order": 3}, 8, 1.0), ({"solver_order": 2, "final_sigmas_type": "sigma_min"}, 7, 1.0)],
    "UniPCMultistep": PREDICTIONS + SPACINGS + BETAS + ZERO_SNR + KARRAS + LEVELS + THRESHOLD + ASKED_KARRAS + SIGMA_MIN + ORDERS + [
        ({"solver_type": "bh1", "final_sigmas_type": "sigma_min"}, 8, 0.7),
        ({"predict_x0": False, "final_sigmas_type": "sigma_min"}, 8, 0.7),
        ({"predict_x0": False, "final_sigmas_type": "sigma_min", "prediction_type": "v_prediction", "solver_order": 3}, 8, 1.0),
        ({"lower_order_final": False, "final_sigmas_type": "sigma_min"}, 8, 0.7),
        ({"disable_corrector": [0, 1]}, 8, 1.0),
        ({"solver_type": "midpoint"}, 6, 0.7),
    ],
    "DEISMultistep": PREDICTIONS + SPACINGS + BETAS + KARRAS + LEVELS + THRESHOLD + ASKED_KARRAS + ORDERS + [
        ({"lower_order_final": False}, 6, 0.7),
    ],
    "LCM": PREDICTIONS + BETAS + ZERO_SNR + THRESHOLD + [({"original_inference_steps": 100}, 8, 0.7), ({}, 50, 0.2)],
    "LCM-strength": [({"prediction_type": "v_prediction"}, 6, 0.7), ({"original_inference_steps": 100}, 8, 0.7)],
    # With upstream's own eta; the pipeline's is 0.
    "TCD": PREDICTIONS + BETAS + ZERO_SNR + [({"original_inference_steps": 100}, 8, 0.7), ({}, 50, 0.2)],
    # Timesteps of the model's own, as distilled models want them.
    **{f"{name}-timesteps": [] for name in ("EulerDiscrete", "DDPM", "LCM", "TCD")},
    # Those that the img2img pipeline cannot run; see `OURS`.
    "DDIMInverse": PREDICTIONS[:1] + SPACINGS[1:] + [({"set_alpha_to_one": True}, 6, 0.7)],
    "IPNDM": PREDICTIONS + SPACINGS + BETAS,
    "KarrasVe": PREDICTIONS[:1] + SPACINGS + ASKED_KARRAS[:2],
    "ScoreSdeVe": PREDICTIONS[:1] + SPACINGS + ASKED_KARRAS[:2],
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
    return denoise(scheduler, (steps - last) * scheduler.order, clean, generator)


def fixed_img2img(timesteps):
    """The same with `timesteps` in place of a number of steps."""

    def run(scheduler, clean, steps, strength, generator):
        scheduler.set_timesteps(timesteps=timesteps)
        last = max(min(int(steps * strength), steps), 1)
        return denoise(scheduler, (steps - last) * scheduler.order, clean, generator)

    return run


def lcm_img2img(scheduler, clean, steps, strength, generator):
    """LatentConsistencyModelImg2ImgPipeline, which gives the strength to `set_timesteps` and runs all steps."""
    scheduler.set_timesteps(steps, strength=strength)
    return denoise(scheduler, 0, clean, generator)


def denoise(scheduler, begin, clean, generator):
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


def ddim_inverse(config, clean, steps, strength, generator):
    """Up with DDIMInverseScheduler, down with DDIMScheduler, over the same timesteps; nothing is drawn."""
    up = diffusers.DDIMInverseScheduler.from_config(config)
    down = diffusers.DDIMScheduler.from_config(config)
    up.set_timesteps(steps)
    down.set_timesteps(steps)
    last = max(min(int(steps * strength), steps), 1)
    latents, inputs, outputs = clean, [], []
    every = [(up, t) for t in up.timesteps[:last]] + [(down, t) for t in down.timesteps[steps - last:]]
    for scheduler, timestep in every:
        inputs.append(latents)
        latents = scheduler.step(model(latents, timestep), timestep, latents).prev_sample
        outputs.append(latents)
    return clean, torch.stack([t for _, t in every]), inputs, outputs


def ipndm(config, clean, steps, strength, generator):
    """IPNDMScheduler's own step, with its levels replaced by the checkpoint's at the timesteps of DDIM."""
    levels = diffusers.DDIMScheduler.from_config({**config, "rescale_betas_zero_snr": False})
    levels.set_timesteps(steps)
    alpha_bars = torch.cat([levels.alphas_cumprod[levels.timesteps], torch.ones(1)])
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(steps)
    scheduler.alphas, scheduler.betas = alpha_bars.sqrt(), (1 - alpha_bars).sqrt()
    last = max(min(int(steps * strength), steps), 1)
    scheduler.set_begin_index(steps - last)
    timesteps = levels.timesteps[steps - last:]
    latents = levels.add_noise(clean, randn_tensor(clean.shape, generator=generator), timesteps[:1])
    start, inputs, outputs = latents, [], []
    for index, timestep in enumerate(timesteps, steps - last):
        inputs.append(latents)
        prediction, alpha, std = model(latents, timestep), scheduler.alphas[index], scheduler.betas[index]
        # Upstream's step takes v.
        if config.get("prediction_type", "epsilon") == "epsilon":
            prediction = (prediction - std * latents) / alpha
        elif config["prediction_type"] == "sample":
            prediction = ((latents - alpha * prediction) / std - std * latents) / alpha
        latents = scheduler.step(prediction, timestep, latents).prev_sample
        outputs.append(latents)
    return start, timesteps, inputs, outputs


def noise_of(config, prediction, latents, sigma):
    """The noise in latents `clean + sigma * noise`, as EulerDiscreteScheduler's derivative."""
    if config.get("prediction_type", "epsilon") == "epsilon":
        return prediction
    clean = prediction * (-sigma / (sigma**2 + 1) ** 0.5) + latents / (sigma**2 + 1)
    return (latents - clean) / sigma


def levels_of(config, steps):
    """The checkpoint's levels as EulerDiscreteScheduler lays them out, and its way from a level to a timestep."""
    euler = diffusers.EulerDiscreteScheduler.from_config(config)
    euler.set_timesteps(steps)
    log_sigmas = (((1 - euler.alphas_cumprod) / euler.alphas_cumprod) ** 0.5).log().numpy()
    return euler.sigmas, euler.timesteps, lambda s: torch.tensor(euler._sigma_to_t(s.double().numpy(), log_sigmas))


def karras_ve(config, clean, steps, strength, generator):
    """KarrasVeScheduler's churn, step and correction on the checkpoint's levels, never above the largest."""
    sigmas, timesteps, to_timestep = levels_of(config, steps)
    scheduler = diffusers.schedulers.deprecated.KarrasVeScheduler()
    scheduler.num_inference_steps = steps
    last = max(min(int(steps * strength), steps), 1)
    latents = clean + randn_tensor(clean.shape, generator=generator) * sigmas[steps - last]
    start, times, inputs, outputs = None, [], [], []

    def noise_at(latents, sigma, timestep):
        scaled = latents / (sigma**2 + 1) ** 0.5
        times.append(timestep)
        inputs.append(scaled)
        return noise_of(config, model(scaled, timestep), latents, sigma)

    for step in range(steps - last, steps):
        sigma, following = sigmas[step], sigmas[step + 1]
        # Upstream's `add_noise_to_input`, with the raised level held at the largest.
        eps = scheduler.config.s_noise * randn_tensor(clean.shape, generator=generator)
        churns = scheduler.config.s_min <= sigma <= scheduler.config.s_max
        gamma = min(scheduler.config.s_churn / steps, 2**0.5 - 1) if churns else 0
        raised = torch.minimum(sigma + gamma * sigma, sigmas[0])
        latents = latents + (raised**2 - sigma**2) ** 0.5 * eps
        if start is None:
            start = latents
        else:
            outputs.append(latents)
        timestep = to_timestep(raised) if raised > sigma else timesteps[step]
        noise = noise_at(latents, raised, timestep)
        # Upstream's model output has the opposite sign.
        result = scheduler.step(-noise, raised, following, latents)
        if following > 0:
            outputs.append(result.prev_sample)
            noise = noise_at(result.prev_sample, following, timesteps[step + 1])
            result = scheduler.step_correct(-noise, raised, following, latents, result.prev_sample, result.derivative)
        latents = result.prev_sample
    outputs.append(latents)
    return start, torch.stack([t.double() for t in times]), inputs, outputs


def score_sde_ve(config, clean, steps, strength, generator):
    """ScoreSdeVeScheduler's corrector and predictor on the checkpoint's levels."""
    sigmas, timesteps, _ = levels_of(config, steps)
    scheduler = diffusers.ScoreSdeVeScheduler()
    scheduler.timesteps = torch.zeros(steps)
    scheduler.discrete_sigmas = sigmas[:-1].flip(0)
    last = max(min(int(steps * strength), steps), 1)
    latents = clean + randn_tensor(clean.shape, generator=generator) * sigmas[steps - last]
    start, times, inputs, outputs = latents, [], [], []

    def score_at(latents, step):
        scaled = latents / (sigmas[step] ** 2 + 1) ** 0.5
        times.append(timesteps[step])
        inputs.append(scaled)
        return -noise_of(config, model(scaled, timesteps[step]), latents, sigmas[step]) / sigmas[step]

    for step in range(steps - last, steps):
        latents = scheduler.step_correct(score_at(latents, step), latents, generator=generator).prev_sample
        outputs.append(latents)
        position = (steps - 1 - step + 0.01) / max(steps - 1, 1)
        result = scheduler.step_pred(score_at(latents, step), position, latents, generator=generator)
        latents = result.prev_sample if step + 1 < steps else result.prev_sample_mean
        outputs.append(latents)
    return start, torch.stack(times), inputs, outputs


# The LCM pipeline's own rule of strength.
LCM_STRENGTH = [
    (1, 1.0), (1, 0.5), (1, 0.05), (2, 0.04), (2, 0.3), (4, 0.08), (4, 0.3), (4, 0.5), (4, 0.58), (8, 0.16), (8, 0.5), (8, 0.99), (8, 1.0), (50, 1.0),
]
FIXED = [[800], [999, 749, 499, 249], [999, 950, 700, 301, 30], [980, 800, 640, 500, 360, 220, 100, 20]]
# What `docs/adr/0003-schedulers-that-diffusers-img2img-cannot-run.md` defines, out of upstream's own steps.
OURS = {"DDIMInverse": ddim_inverse, "IPNDM": ipndm, "KarrasVe": karras_ve, "ScoreSdeVe": score_sde_ve}


def record(name, clean):
    tensors, cases = {"clean": clean}, []
    lower_start = name == "LCM-strength"
    runs = LCM_STRENGTH if lower_start else RUNS
    every = [({}, steps, strength) for steps, strength in runs] + SCHEDULERS[name]
    if name.endswith("-timesteps"):
        every = [({"_timesteps": fixed}, len(fixed), strength) for fixed in FIXED for strength in (1.0, 0.7, 0.3)]
    # The class's own defaults, where the file is silent.
    every.append(({"_bare": True}, 6, 0.6))
    for number, (changes, steps, strength) in enumerate(every):
        described = json.dumps(changes)
        changes = dict(changes)
        config = {} if changes.pop("_bare", False) else SD15
        fixed = changes.pop("_timesteps", None)
        karras, algorithm = changes.pop("_karras", False), changes.pop("_algorithm", None)
        config = {**config, **PIPELINE, **changes}
        asked = {"use_karras_sigmas": True} if karras else {}
        if algorithm:
            asked["algorithm_type"] = algorithm
            if algorithm in ("dpmsolver", "sde-dpmsolver"):
                # Upstream refuses to end these without noise and names this remedy; it is what we do.
                asked["final_sigmas_type"] = "sigma_min"
        seed = 1000 + number
        generator = torch.Generator("cpu").manual_seed(seed)
        if name in OURS:
            run = OURS[name]({**config, **asked}, clean, steps, strength, generator)
        else:
            scheduler = getattr(diffusers, name.split("-")[0] + "Scheduler").from_config({**config, **asked})
            way = fixed_img2img(fixed) if fixed else lcm_img2img if lower_start else img2img
            run = way(scheduler, clean, steps, strength, generator)
        start, timesteps, inputs, latents = run
        assert torch.isfinite(latents[-1]).all(), (name, described)
        tensors[f"{number}.timesteps"] = timesteps.to(torch.float64)
        tensors[f"{number}.start"] = start
        tensors[f"{number}.inputs"] = torch.cat(inputs)
        tensors[f"{number}.latents"] = torch.cat(latents)
        cases.append({"config": config, "changes": described, "karras": karras, "algorithm": algorithm,
                      "steps": steps, "strength": strength, "seed": seed,
                      **({"timesteps": fixed} if fixed else {}),
                      **({"strength_rule": "lower_start"} if lower_start else {})})
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
