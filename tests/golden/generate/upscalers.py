"""Pictures enlarged by small seeded networks of Real-ESRGAN's two architectures, by spandrel (`ESRGAN`, `Compact`).

`upscalers/x4.pth` has the layout of RealESRGAN_x4plus.pth (`params_ema`), `upscalers/x2.pth` that of RealESRGAN_x2plus.pth, which
takes four pixels as one, and `upscalers/compact.pth` that of realesr-general-x4v3.pth (`params`). `upscalers/cases` holds a
picture, and what each makes of it: numbers about 0..1, before they are rounded. Needs spandrel 0.4.2 beside the other packages.
"""
import torch
from spandrel import ModelLoader

from golden_file import GOLDEN, quiet_and_repeatable, save_golden

FEATURES, GROWTH = 8, 32
SIZE = (21, 18)


def convolution(state, name, inputs, outputs, generator):
    # Half of what keeps the variance: networks that enlarge add up many of them.
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * (1.0 / (inputs * 9)) ** 0.5
    state[f"{name}.weight"] = weight.half()
    state[f"{name}.bias"] = (torch.randn(outputs, generator=generator) * 0.1).half()


def rrdb(inputs, generator):
    state = {}
    convolution(state, "conv_first", inputs, FEATURES, generator)
    for part in (1, 2, 3):
        for number in range(1, 6):
            outputs = FEATURES if number == 5 else GROWTH
            name = f"body.0.rdb{part}.conv{number}"
            convolution(state, name, FEATURES + (number - 1) * GROWTH, outputs, generator)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        convolution(state, name, FEATURES, FEATURES, generator)
    convolution(state, "conv_last", FEATURES, 3, generator)
    return state


def compact(generator):
    state = {}
    convolution(state, "body.0", 3, FEATURES, generator)
    for number in (1, 3, 5):
        state[f"body.{number}.weight"] = torch.rand(FEATURES, generator=generator).half() * 0.5
        if number < 5:
            convolution(state, f"body.{number + 1}", FEATURES, FEATURES, generator)
    convolution(state, "body.6", FEATURES, 48, generator)
    return state


def main():
    quiet_and_repeatable()
    generator = torch.Generator().manual_seed(19)
    small = torch.randint(0, 256, (1, 3, 5, 4), generator=generator).float()
    picture = torch.nn.functional.interpolate(small, size=SIZE, mode="bicubic").round().clamp(0, 255)
    tensors = {"picture": picture[0].permute(1, 2, 0).to(torch.uint8)}
    for name, group, state in (("x4", "params_ema", rrdb(3, generator)), ("x2", "params_ema", rrdb(12, generator)),
                               ("compact", "params", compact(generator))):
        path = GOLDEN / "upscalers" / f"{name}.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({group: state}, path)
        loaded = ModelLoader().load_from_state_dict({key: value.float() for key, value in state.items()})
        found = loaded.model.eval()(picture / 255)
        print(name, loaded.architecture.id, loaded.scale, tuple(found.shape), float(found.std()), path.stat().st_size)
        tensors[name] = found[0].permute(1, 2, 0)
    save_golden("upscalers/cases.safetensors", tensors, "upscalers.py", spandrel="0.4.2")


main()
