"""Counts how many pictures of a folder the embedded safety checker takes for unsafe, with its weights in PyTorch.

    python count.py <folder>                    needs numpy, pillow, safetensors and torch

It stands beside crates/service/examples/false_positives.rs, which does the same with the server's own code, and begins with how
far it is from the scores of TensorFlow.js in tests/golden/embedded_nets.
"""
import collections
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import load_file

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
WEIGHTS = load_file(REPOSITORY / "crates/embedded-nets/weights/nsfw_mobilenet_v2.safetensors")
THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9)
# Of Drawing, Hentai, Neutral, Porn, Sexy.
LEVELS = {"explicit": (0, 1, 0, 1, 0), "suggestive": (0, 1, 0, 1, 0.5), "revealing": (0, 1, 0, 1, 1)}


def tensor(name):
    smallest, step = WEIGHTS[name + "/range"]
    return torch.from_numpy((WEIGHTS[name].astype(np.float64) * step + smallest).astype(np.float32))


def norm(x, name):
    parts = [tensor(f"{name}/{part}") for part in ("moving_mean", "moving_variance", "gamma", "beta")]
    return F.batch_norm(x, *parts, eps=0.001)


def conv(x, name, stride=1):
    return F.conv2d(x, tensor(name + "/kernel").permute(3, 2, 0, 1), stride=stride)


def depthwise(x, name, stride):
    padding = (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)
    return F.conv2d(F.pad(x, padding), tensor(name + "/depthwise_kernel").permute(2, 3, 0, 1), stride=stride, groups=x.shape[1])


def scores(picture):
    x = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    x = F.interpolate(x, (224, 224), mode="bilinear", align_corners=True)
    x = F.relu6(norm(conv(F.pad(x, (0, 1, 0, 1)), "Conv1", 2), "bn_Conv1"))
    number, inputs = 0, 32
    for outputs, first_stride, count in [(16, 1, 1), (24, 2, 2), (32, 2, 3), (64, 2, 4), (96, 1, 3), (160, 2, 3), (320, 1, 1)]:
        for at in range(count):
            name = f"block_{number}_" if number else "expanded_conv_"
            y = F.relu6(norm(conv(x, name + "expand"), name + "expand_BN")) if number else x
            y = F.relu6(norm(depthwise(y, name + "depthwise", 1 if at else first_stride), name + "depthwise_BN"))
            y = norm(conv(y, name + "project"), name + "project_BN")
            x = x + y if inputs == outputs else y
            inputs, number = outputs, number + 1
    x = F.relu6(norm(conv(x, "Conv_1"), "Conv_1_bn")).mean((2, 3))
    for layer in ("dense_1", "dense_2"):
        x = F.relu(x @ tensor(layer + "/kernel") + tensor(layer + "/bias"))
    return F.softmax(x @ tensor("dense_3/kernel") + tensor("dense_3/bias"), -1)[0].numpy()


torch.set_grad_enabled(False)
golden = load_file(REPOSITORY / "tests/golden/embedded_nets/classes.safetensors")
names = [name[: -len(".picture")] for name in golden if name.endswith(".picture")]
print("golden scores: at most", max(abs(scores(golden[n + ".picture"]) - golden[n + ".scores"]).max() for n in names), "apart")
groups = collections.defaultdict(list)
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    groups[path.stem.split("-")[0]].append((path.stem, scores(np.asarray(Image.open(path).convert("RGB")))))
for group, found in groups.items():
    print(f"{group}: {len(found)} pictures")
    for level, shares in LEVELS.items():
        unsafe = [(float(np.dot(score, shares)), name) for name, score in found]
        counts = ", ".join(f"{sum(share >= limit for share, _ in unsafe)} at {limit}" for limit in THRESHOLDS)
        print(f"  {level}: {counts}; highest {max(unsafe)[1]} {max(unsafe)[0]:.3f}")
