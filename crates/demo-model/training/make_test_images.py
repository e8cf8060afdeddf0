"""Makes the pictures of `tests/images/` from the scene generator and one CC0 photograph."""
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import scenes
from stage import arguments


def land(**more):
    """Attributes of a landscape."""
    a = dict.fromkeys(scenes.ATTRS)
    a.update(kind="land", style="", snow=0, **more)
    return a


def main():
    a = arguments(__doc__, photo=(Path, None, "the photograph (scikit-image's coffee.png)"), out=(Path, None, "tests/images"),
                  seed=(int, 8, "of the scene"))
    day = dict(terrain="mountains", time="day")
    scene = Image.fromarray(scenes.render(a.seed, 128, land(**day, extra="tree")))
    bare = scenes.render(a.seed, 128, land(**day))
    scene.save(a.out / "scene.png", optimize=True)
    tree = np.abs(np.asarray(scene).astype(int) - bare).max(-1) > 8
    mask = Image.fromarray((tree * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(9))
    mask.save(a.out / "mask.png", optimize=True)

    photo = Image.open(a.photo).convert("RGB")
    high = round(photo.width / 1.5)
    top = (photo.height - high) // 2
    photo = photo.resize((192, 128), Image.LANCZOS, box=(0, top, photo.width, top + high))
    photo.save(a.out / "photo.png", optimize=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: a viewer must rotate it by 90 degrees clockwise
    photo.transpose(Image.Transpose.ROTATE_90).save(a.out / "exif-rotated.jpg", quality=88, exif=exif)
    scene.convert("L").save(a.out / "grey.png", optimize=True)
    star = dict.fromkeys(scenes.ATTRS)
    star.update(kind="shapes", style="", c1="yellow", s1="star", bg="blue", pattern="", size="large", place="")
    rgba = Image.fromarray(scenes.render(3, 96, star)).convert("RGBA")
    y, x = np.mgrid[:96, :96]
    rgba.putalpha(Image.fromarray(np.clip((46 - np.hypot(x - 47.5, y - 47.5)) * 25, 0, 255).astype(np.uint8)))
    rgba.save(a.out / "rgba.png", optimize=True)
    Image.fromarray(scenes.render(5, 67, land(terrain="sea", time="sunset", extra="boat"))[11:56]).save(
        a.out / "odd-67x45.png", optimize=True)


if __name__ == "__main__":
    main()
