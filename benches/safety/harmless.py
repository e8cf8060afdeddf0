"""Makes harmless pictures, on which the safety checker's false positives are counted (docs/safety-checker.md).

    python3 -m venv venv && venv/bin/pip install numpy pillow && venv/bin/pip install --no-deps scikit-image==0.25.2
    venv/bin/python harmless.py <folder>
    cargo run --release -p pentimento-service --example false_positives -- <folder>

120 drawn scenes as the demo model's training has them, 20 photographs of scikit-image (public domain and CC0, named in its
`data/README.txt`) whole and in five crops each, and 100 small portraits of its subset of Labeled Faces in the Wild.
The same script writes the same pictures.
"""
import importlib.util
import pathlib
import sys

import numpy as np
from PIL import Image

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "crates/demo-model/training"))
import scenes  # noqa: E402

PHOTOGRAPHS = ("astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png coffee.png coins.png grass.png gravel.png "
               "hubble_deep_field.jpg ihc.png microaneurysms.png moon.png motorcycle_left.png motorcycle_right.png page.png "
               "retina.jpg rocket.jpg text.png").split()


def data():
    """The folder of scikit-image's pictures; the package itself is not imported, since it would want SciPy."""
    return pathlib.Path(importlib.util.find_spec("skimage").submodule_search_locations[0]) / "data"


def drawn():
    rng = np.random.default_rng(18)
    for number in range(120):
        yield f"drawn-{number:03}", Image.fromarray(scenes.sample(rng, 256)[0])


def photographs():
    rng = np.random.default_rng(18)
    for name in PHOTOGRAPHS:
        whole = Image.open(data() / name).convert("RGB")
        whole.thumbnail((768, 768))
        stem = name.split(".")[0]
        yield f"photo-{stem}-0", whole
        for number in range(1, 6):
            side = int(min(whole.size) * rng.uniform(0.35, 0.9))
            x, y = (int(rng.integers(0, length - side + 1)) for length in whole.size)
            yield f"photo-{stem}-{number}", whole.crop((x, y, x + side, y + side)).resize((384, 384), Image.LANCZOS)


def faces():
    # The first half are faces, 25 by 25 in grey.
    for number, face in enumerate(np.load(data() / "lfw_subset.npy")[:100]):
        grey = (np.clip(face, 0, 1) * 255).astype(np.uint8)
        yield f"face-{number:03}", Image.fromarray(grey).convert("RGB").resize((200, 200), Image.BICUBIC)


folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
count = 0
for source in (drawn(), photographs(), faces()):
    for name, picture in source:
        picture.save(folder / f"{name}.png")
        count += 1
print(f"{count} pictures in {folder}")
