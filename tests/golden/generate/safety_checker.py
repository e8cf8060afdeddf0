"""The reference safety checker (diffusers' `StableDiffusionSafetyChecker`) with a tiny image encoder and seeded concepts.

`safety_checker/model/` is a folder as a repository has it, with the thresholds of a published one's size. `safety_checker/cases`
holds pictures, what CLIP's processor makes of them, embeddings and cosines. The thresholds are set after each picture's own
cosines, so that its scores lie on both sides of what the rounding to three decimals decides, with and without special care.
"""
import json

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor

from golden_file import GOLDEN, quiet_and_repeatable, save_golden

SIDE = 28
VISION = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=SIDE, patch_size=14,
              projection_dim=512, hidden_act="quick_gelu")
# Of the checker. What the image encoder's own part says is not used, in the published files as well.
PROJECTION = 24
SIZES = [(40, 56), (64, 48), (28, 28), (90, 31), (33, 33), (29, 200)]


def pictures(generator):
    for height, width in SIZES:
        small = torch.randint(0, 256, (3, 4, 5), generator=generator).float()
        large = torch.nn.functional.interpolate(small[None], size=(height, width), mode="bilinear")[0]
        yield (large + torch.randint(-8, 9, large.shape, generator=generator)).clamp(0, 255).to(torch.uint8)


def main():
    quiet_and_repeatable()
    generator = torch.Generator().manual_seed(18)
    torch.manual_seed(18)
    config = CLIPConfig(vision_config=VISION, projection_dim=PROJECTION)
    checker = StableDiffusionSafetyChecker(config).eval()
    for name, parameter in checker.named_parameters():
        scale = 1.0 if "embeds" in name and "weights" not in name else 0.2
        noise = torch.randn(parameter.shape, generator=generator) * scale
        parameter.data = noise + 1 if "norm" in name and name.endswith("weight") else noise
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    images = list(pictures(generator))
    pixels = torch.cat([processor(image, return_tensors="pt", input_data_format="channels_first")["pixel_values"] for image in images])
    embeddings = checker.visual_projection(checker.vision_model(pixels)[1])
    concepts = cosine_distance(embeddings, checker.concept_embeds)
    special = cosine_distance(embeddings, checker.special_care_embeds)
    # Far below a picture's own cosines, then a little below and above the half of a thousandth, and of 0.01 more.
    steps = torch.tensor([0.2, 0.1, 0.0004, 0.0006, -0.0004, -0.0006, 0.0094, 0.0096, 0.0104, 0.0106, 0.3, -0.2, 0.01, 0.005, 0.02, 0.0, 1.0])
    tensors = {"pixels": pixels, "embeddings": embeddings, "concepts": concepts, "special": special}
    for index in range(len(images)):
        weights = concepts[index] + steps.roll(index)
        for care, step in (("plain", 0.0004), ("care", -0.0006)):
            special_weights = special[index] + torch.tensor([0.2, step, 0.3])
            checker.special_care_embeds_weights.data = special_weights.clone()
            found = []
            for concept in range(len(steps)):
                # The checker says only whether any concept is too near, so each is asked alone.
                alone = torch.full_like(weights, 10)
                alone[concept] = weights[concept]
                checker.concept_embeds_weights.data = alone
                _, unsafe = checker(pixels[index : index + 1], [np.zeros(1)])
                found.append(unsafe[0])
            tensors[f"{care}.{index}.special_weights"] = special_weights
            tensors[f"{care}.{index}.bad"] = torch.tensor(found, dtype=torch.uint8)
            print(index, care, "".join("01"[value] for value in found))
        tensors[f"weights.{index}"] = weights
    for index, image in enumerate(images):
        tensors[f"picture.{index}"] = image.permute(1, 2, 0)
    save_golden("safety_checker/cases.safetensors", tensors, "safety_checker.py", sizes=SIZES)
    checker.concept_embeds_weights.data = concepts[0] + steps
    checker.special_care_embeds_weights.data = special[0] + torch.tensor([0.2, 0.0004, 0.3])
    folder = GOLDEN / "safety_checker/model"
    folder.mkdir(parents=True, exist_ok=True)
    # Published files have the names of older versions of transformers: `vision_model.vision_model.…`.
    state = {}
    for name, value in checker.state_dict().items():
        if name.startswith("vision_model.") and not name.startswith("vision_model.vision_model."):
            name = "vision_model." + name
        if not name.endswith("position_ids"):
            state[name] = value.contiguous().clone()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    written = {"_class_name": "StableDiffusionSafetyChecker", "architectures": ["StableDiffusionSafetyChecker"],
               "model_type": "clip", "projection_dim": PROJECTION, "vision_config": VISION, "logit_scale_init_value": 2.6592}
    (folder / "config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


main()
