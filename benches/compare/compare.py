#!/usr/bin/env python3
"""Runs pentimento and its peers side by side and prints a Markdown table with ratios to pentimento.

    python compare.py --pentimento target/release/pentimento --model models/sd15-lcm \
        --openvino-model models/sd15-openvino --peer diffusers --peer openvino --peer sdcpp \
        --case 512:LCM:1:4 --case 512:UniPC:7.5:3 --rounds 3 --out results.json

Every contestant runs in a process of its own, one at a time, with all cores. A round runs each of them once for each
case, so a machine that becomes slower or busier does so for all; each round begins with another contestant. The first
picture of a process does not count, because programs differ in what they leave to it; medians are taken over the
others of all rounds. The JSON is written anew after every process: what an interrupted comparison has measured is
kept. `--table results.json` prints the table of such a file again.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
OURS = "pentimento"
# Ours in another precision, beside ours as it is: named as a peer.
OURS_IN = {"pentimento-bf16": ["--precision", "bf16"]}
PEERS = {
    "diffusers": ["peer_diffusers.py"],
    "diffusers-bf16": ["peer_diffusers.py", "--dtype", "bfloat16"],
    "diffusers-parts": ["one_by_one.py", "diffusers"],
    "openvino": ["peer_openvino.py", "run"],
    "openvino-default": ["peer_openvino.py", "run", "--precision", "default"],
    "openvino-parts": ["one_by_one.py", "openvino"],
    "sdcpp": ["peer_sdcpp.py", "--type", "f16"],
    "sdcpp-q8": ["peer_sdcpp.py", "--type", "q8_0"],
}
# What the scripts of the peers call a scheduler, in pentimento's words.
SCHEDULERS = {"LCM": "LCM", "UniPC": "UniPCMultistep", "DDIM": "DDIM", "Euler": "EulerDiscrete"}
PARTS = ("picture", "evaluation", "vae_encode", "vae_decode", "text_encode")


@dataclasses.dataclass(frozen=True)
class Case:
    """What to measure: SIZE:SCHEDULER:GUIDANCE:STEPS."""

    size: int
    scheduler: str
    guidance: float
    steps: int

    @classmethod
    def parse(cls, text):
        try:
            size, scheduler, guidance, steps = text.split(":")
            SCHEDULERS[scheduler]
            return cls(int(size), scheduler, float(guidance), int(steps))
        except (KeyError, ValueError) as error:
            raise argparse.ArgumentTypeError(
                f"write SIZE:SCHEDULER:GUIDANCE:STEPS, like 512:LCM:1:4; SCHEDULER is one of {', '.join(SCHEDULERS)}"
            ) from error

    def __str__(self):
        return f"{self.size}:{self.scheduler}:{self.guidance:g}:{self.steps}"

    def flags(self, schedulers=None):
        scheduler = schedulers[self.scheduler] if schedulers else self.scheduler
        return ["--size", str(self.size), "--scheduler", scheduler, "--guidance", f"{self.guidance:g}",
                "--steps", str(self.steps)]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pentimento", metavar="BINARY", help="a release build; without it only the peers run")
    parser.add_argument("--model", metavar="DIR", help="diffusers folder that build_models.py wrote")
    parser.add_argument("--openvino-model", metavar="DIR", help="folder that `peer_openvino.py export` wrote")
    parser.add_argument("--peer", action="append", choices=sorted(PEERS | OURS_IN), default=[], help="may be repeated")
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--case", action="append", type=Case.parse, metavar="SIZE:SCHEDULER:GUIDANCE:STEPS",
                        help="may be repeated [default: 512:LCM:1:4]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=1, help="pictures of each process that count")
    parser.add_argument("--discard", type=int, default=1,
                        help="pictures of each process before them: the first one pays for what is set up once")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS", help="of one process")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE", help="JSON with every measurement")
    parser.add_argument("--table", type=pathlib.Path, metavar="FILE", help="run nothing, print the table of this JSON")
    args = parser.parse_args()
    contestants = [OURS] * bool(args.pentimento) + args.peer
    if not args.table:
        if not contestants:
            parser.error("name a contestant: --pentimento BINARY or --peer NAME")
        if not args.pentimento and any(contestant in OURS_IN for contestant in contestants):
            parser.error(f"{', '.join(OURS_IN)} need --pentimento BINARY")
        if not args.model and not all(map(is_openvino, contestants)):
            parser.error("--model is needed")
        if any(map(is_openvino, contestants)) and not args.openvino_model:
            parser.error("OpenVINO needs --openvino-model")
    return args, contestants


def is_openvino(contestant):
    return contestant.startswith("openvino")


def command(contestant, case, args):
    """The words that start one contestant on one case."""
    repeat = ["--repeat", str(args.repeat + args.discard)]
    if contestant == OURS or contestant in OURS_IN:
        return [args.pentimento, "bench", "--json", "--folder", args.model, *case.flags(SCHEDULERS),
                *repeat, *OURS_IN.get(contestant, [])]
    script, *more = PEERS[contestant]
    model = args.openvino_model if is_openvino(contestant) else args.model
    return [args.python, str(HERE / script), *more, "--model", model, "--threads", str(args.threads),
            *case.flags(), *repeat]


def measure(contestant, case, args):
    """One process: its JSON without the pictures to discard, or what went wrong."""
    threads = str(args.threads)
    environment = {**os.environ, "RAYON_NUM_THREADS": threads, "CANDLE_NUM_THREADS": threads,
                   "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    entry = {"contestant": contestant, "case": str(case), "load_average": round(os.getloadavg()[0], 2)}
    start = time.monotonic()
    try:
        done = subprocess.run(command(contestant, case, args), env=environment, capture_output=True, text=True,
                              timeout=args.timeout, check=False)
    except subprocess.TimeoutExpired:
        return {**entry, "error": f"took more than {args.timeout:g} s"}
    except OSError as error:
        return {**entry, "error": error.strerror}
    entry["process_seconds"] = round(time.monotonic() - start, 2)
    found = json_in(done.stdout)
    if done.returncode or found is None:
        return {**entry, "error": message(done)}
    runs = [with_whole(run) for run in found["runs"][args.discard:]]
    facts = {key: found[key] for key in ("versions", "version", "ran_scheduler", "peak_by_part") if key in found}
    return {**entry, **facts, "load_seconds": found["load_seconds"],
            "peak_memory_bytes": found["peak_memory_bytes"], "runs": runs}


def message(done):
    """What a process that failed said last."""
    said = (done.stderr or done.stdout).strip()
    # After this line clap only says how to ask for help.
    said = said.split("\n\nFor more information")[0].split("\n\nUsage:")[0]
    return said[-1000:] or f"exit code {done.returncode}"


def json_in(text):
    """The JSON object that a contestant printed; libraries may have written lines before it."""
    at = text.find("{\n") if text.lstrip().startswith("{\n") else text.rfind("\n{") + 1
    try:
        return json.loads(text[max(at, 0):])
    except ValueError:
        return None


def with_whole(run):
    """pentimento gives the parts only: nothing happens between them."""
    parts = run["text_encode"] + run["vae_encode"] + sum(run["evaluations"]) + sum(run["vae_decodes"])
    return {**run, "picture": run.get("picture", parts)}


def samples(entries, part):
    runs = [run for entry in entries for run in entry.get("runs", [])]
    several = {"evaluation": "evaluations", "vae_decode": "vae_decodes"}.get(part)
    return [seconds for run in runs for seconds in (run[several] if several else [run[part]])]


def medians(entries):
    """The median of each part over all processes of one contestant and case; None where nothing was measured."""
    middle = {part: median(samples(entries, part)) for part in PARTS}
    for key in ("load_seconds", "peak_memory_bytes"):
        middle[key] = median([entry[key] for entry in entries if entry.get(key) is not None])
    return middle


def median(numbers):
    return statistics.median(numbers) if numbers else None


def tables(entries):
    """Markdown: one table for each case, in the order in which they were measured."""
    text = []
    for case in dict.fromkeys(entry["case"] for entry in entries):
        of_case = [entry for entry in entries if entry["case"] == case]
        names = sorted({entry["contestant"] for entry in of_case}, key=lambda name: (name != OURS, name))
        rows = {name: medians([entry for entry in of_case if entry["contestant"] == name]) for name in names}
        size, scheduler, guidance, steps = case.split(":")
        text += [f"{size}x{size}, {scheduler}, guidance {guidance}, {steps} steps; median seconds, in brackets the "
                 "ratio to pentimento", "",
                 "| | picture | evaluation | VAE encode | VAE decode | text | load | peak MiB | pictures |",
                 "|---|---|---|---|---|---|---|---|---|"]
        text += [row(name, rows, of_case) for name in names] + [""]
    return "\n".join(text)


def row(name, rows, of_case):
    own, ours = rows[name], rows.get(OURS, {})
    mine = [entry for entry in of_case if entry["contestant"] == name]
    ran = next((entry["ran_scheduler"] for entry in mine if "ran_scheduler" in entry), None)
    # OpenVINO's EULER_DISCRETE is what was asked for; a stand-in is named.
    stood_in = ran is not None and ran.upper().split("_")[0] not in mine[0]["case"].upper()
    shown = f"{name} ({ran})" if stood_in else name
    failed = sum("error" in entry for entry in mine)
    cells = [cell(own[part], None if name == OURS else ours.get(part)) for part in PARTS]
    cells.append(cell(own["load_seconds"], None))
    cells.append("–" if own["peak_memory_bytes"] is None else f"{own['peak_memory_bytes'] / 2**20:.0f}")
    cells.append(f"{len(samples(mine, 'picture'))}" + (f", {failed} failed" if failed else ""))
    return f"| {shown} | " + " | ".join(cells) + " |"


def cell(seconds, ours):
    if seconds is None:
        return "–"
    shown = f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"
    return f"{shown} ({seconds / ours:.2f})" if ours else shown


def compare(args, contestants):
    """All rounds; gives what was measured, process by process."""
    entries = []
    cases = args.case or [Case.parse("512:LCM:1:4")]
    for number in range(args.rounds):
        turn = number % len(contestants)
        for case in cases:
            for contestant in contestants[turn:] + contestants[:turn]:
                entry = {"round": number + 1, **measure(contestant, case, args)}
                entries.append(entry)
                outcome = (f"failed: {entry['error'].splitlines()[-1]}" if "error" in entry
                           else f"{median(samples([entry], 'picture')):.2f} s a picture")
                print(f"round {number + 1}, {case}, {contestant}: {outcome}", file=sys.stderr, flush=True)
                if args.out:
                    write(args.out, args, entries)
    return entries


def write(path, args, entries):
    groups = dict.fromkeys((entry["case"], entry["contestant"]) for entry in entries)
    summary = [{"case": case, "contestant": name,
                "median": medians([e for e in entries if (e["case"], e["contestant"]) == (case, name)])}
               for case, name in groups]
    result = {"threads": args.threads, "rounds": args.rounds, "repeat": args.repeat, "discard": args.discard,
              "summary": summary, "processes": entries}
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def main():
    args, contestants = arguments()
    if args.table:
        print(tables(json.loads(args.table.read_text(encoding="utf-8"))["processes"]))
        return
    entries = compare(args, contestants)
    print(tables(entries))
    if any("error" in entry for entry in entries):
        sys.exit(1)


if __name__ == "__main__":
    main()
