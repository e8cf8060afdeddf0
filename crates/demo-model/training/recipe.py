"""The whole recipe: runs the stages in order, each from its last checkpoint, and may be stopped and started at any time.

`python recipe.py --run FOLDER` goes on where the folder is; `--only unet` runs one stage, `--minutes 60` stops after an
hour, and SIGTERM makes the running stage save and stop.
A folder without any checkpoint begins with the committed snapshot, if there is one; `--save-snapshot 1` only writes it anew.
`--smoke 1` runs every stage for a few steps on a few pictures, to see that the scripts are sound.
A stage is over when its checkpoint has reached its steps (see `STAGES`).
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import snapshot

HERE = Path(__file__).parent
UNET_STEPS = 4_600  # at both sizes together: the learning rate falls over all of them
# name, script and arguments, steps, checkpoint, processes
STAGES = [
    ("vae", ["train_vae.py"], 7_000, "vae.pt", 1),
    ("text", ["train_text.py", "--captions", "25000"], 1_500, "text.pt", 1),
    ("whiten", ["whiten.py"], 0, "vae_white.pt", 1),
    ("latents64", ["make_latents.py", "--size", "64"], 20, "latents/64-*.pt", 2),
    ("unet64", ["train_unet.py", "--size", "64", "--batch", "128", "--schedule", str(UNET_STEPS)], 1_200, "unet.pt", 1),
    ("latents", ["make_latents.py"], 24, "latents/128-*.pt", 2),
    ("unet", ["train_unet.py"], UNET_STEPS, "unet.pt", 1),
    ("decoder", ["train_vae.py", "--decoder-only", "1", "--lr", "2e-4"], 5_000, "vae_decoder.pt", 1),
    ("lcm", ["train_lcm.py"], 2_000, "lcm.pt", 1),
    ("lora", ["train_style.py", "--kind", "lora"], 800, "style_lora.pt", 1),
    ("inversion", ["train_style.py", "--kind", "inversion"], 400, "style_inversion.pt", 1),
    ("tiny", ["train_tiny.py"], 4_000, "tiny.pt", 1),
    ("vision", ["train_ip.py", "--kind", "vision"], 3_000, "vision.pt", 1),
    ("ip", ["train_ip.py", "--kind", "adapter"], 3_000, "ip.pt", 1),
    ("evaluate", ["evaluate.py"], 0, None, 1),
    ("export", ["export.py"], 0, None, 1),
]
# Only when named by --only: larger pictures, from the UNet of 128 px, whose steps they go on counting.
LATER = [
    ("latents256", ["make_latents.py", "--size", "256"], 16, "latents/256-*.pt", 2),
    ("unet256", ["train_unet.py", "--size", "256", "--batch", "16"], 7_000, "unet.pt", 1),
]

SMOKE = {"vae": ["--pool", "24"], "text": ["--captions", "3000"], "latents64": ["--pairs", "64"], "latents": ["--pairs", "64"], "decoder": ["--pool", "24"],
         "lora": ["--pictures", "32"], "inversion": ["--pictures", "32"], "tiny": ["--pool", "32"], "vision": ["--pictures", "48"],
         "ip": ["--pictures", "32"], "evaluate": ["--judge-minutes", ".1", "--sampler-steps", "4"]}
# Steps of a smoke run where they are not 4: files of latents, and stages that go on counting another's.
FEW = {"latents64": 2, "latents": 2, "latents256": 2, "unet": 8, "unet256": 12}


def done(run, steps, checkpoint):
    """Whether a stage's checkpoint exists and has all its steps; a stage without one always runs."""
    if checkpoint and "*" in checkpoint:  # the latents: as many files as steps
        return len(list(run.glob(checkpoint))) >= steps
    path = run / checkpoint if checkpoint else None
    if path is None or not path.exists():
        return False
    if not steps:
        return True
    import torch
    return torch.load(path, map_location="cpu")["step"] >= steps


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run", type=Path, default=HERE / "run")
    p.add_argument("--only", default="", help="names of stages, separated by commas")
    p.add_argument("--minutes", type=float, default=1e9, help="wall-clock budget of this call")
    p.add_argument("--threads", type=int, default=2, help="cores to use: stages of two processes take half each")
    p.add_argument("--steps", default="{}", help='other step counts, as JSON: {"vae": 500}')
    p.add_argument("--smoke", type=int, default=0, help="1: a few steps of everything")
    p.add_argument("--snapshot", type=Path, default=snapshot.FILE, help="the file of a run's state that a folder without checkpoints begins with")
    p.add_argument("--save-snapshot", type=int, default=0, help="1: write that file from the folder, and train nothing")
    a = p.parse_args()
    if a.save_snapshot:
        return print("snapshot", json.dumps(snapshot.save(a.run, a.snapshot)))
    if a.snapshot.exists() and snapshot.untouched(a.run) and not (a.smoke and a.snapshot == snapshot.FILE):
        print("restored", json.dumps(snapshot.restore(a.run, a.snapshot)), flush=True)
    end, children, more = time.time() + a.minutes * 60, [], json.loads(a.steps)

    def stop(*_):
        nonlocal end
        end = 0
        for c in children:
            c.terminate()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for name, command, steps, checkpoint, processes in [*STAGES, *(s for s in LATER if s[0] in a.only.split(","))]:
        steps = more.get(name, steps and FEW.get(name, 4) if a.smoke else steps)
        if a.only and name not in a.only.split(",") or done(a.run, steps, checkpoint):
            continue
        left = (end - time.time()) / 60
        if left <= 0:
            break
        processes = min(processes, a.threads)
        threads = str(max(1, a.threads // processes))
        print("stage", name, flush=True)
        children[:] = [subprocess.Popen(
            [sys.executable, str(HERE / command[0]), *command[1:], "--run", str(a.run), "--minutes", str(left), "--threads", threads]
            + (SMOKE.get(name, []) if a.smoke else [])
            + (["--files" if name.startswith("latents") else "--steps", str(steps)] if steps else []) + (["--rank", str(rank), "--world", str(processes)] if processes > 1 else []),
            env={**os.environ, "OMP_NUM_THREADS": threads}) for rank in range(processes)]
        failed = any([c.wait() for c in children])
        if failed and end:
            raise SystemExit(f"stage {name} failed")
        if checkpoint and end and not done(a.run, steps, checkpoint):
            break
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
