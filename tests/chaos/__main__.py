"""Kills parts of a real cluster at random moments and proves that the output is the same, byte by byte.

python -m tests.chaos                                  100 kills over runs of several widths (about an hour)
python -m tests.chaos --kills 8 --lots 30              one short run
python -m tests.chaos --kinds driver,node --seed 7     other kinds, other moments
python -m tests.chaos --beside --kinds node,driver     two runs on one cluster
python -m tests.chaos --endpoint                       a few kills under an endpoint that fails and counts its calls
python -m tests.chaos --teacher                        a few kills under a real small vLLM teacher

Exit code 0 only when every run was right. When one was not, its output and all logs are kept.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from gristmill.engines.guard import Guard
from tests.chaos import paid
from tests.chaos.campaign import Campaign, Failed
from tests.chaos.plan import KINDS
from tests.chaos.report import ends, literals, splits, table, versions, write


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, help="how many (default 100; 4 with --teacher, 10 with --endpoint)")
    parser.add_argument("--seed", type=int, default=1, help="of kinds, moments and victims (default 1)")
    parser.add_argument("--kinds", help=f"some of {','.join(KINDS)} (default all; replica,driver with --teacher)")
    parser.add_argument("--lots", type=int, help="of each run (default 60; 16 with --teacher)")
    parser.add_argument("--teacher", action="store_true", help="the real vLLM engine with a small model")
    parser.add_argument("--endpoint", action="store_true", help="an endpoint whose calls fail and are counted")
    parser.add_argument("--beside", action="store_true", help="a second run on the same cluster, judged as well")
    parser.add_argument("--reconnect-s", type=int, help="how long Ray waits for a lost head (default Ray's own, 60)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs and kills.json there in any case")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table between the markers of this file")
    args = parser.parse_args(argv)
    args.kills = args.kills or (4 if args.teacher else 10 if args.endpoint else 100)
    args.lots = args.lots or (16 if args.teacher else 60)
    usual = ("replica", "driver") if args.teacher else paid.KINDS if args.endpoint else KINDS
    args.kinds = tuple(args.kinds.split(",") if args.kinds else usual)
    if unknown := set(args.kinds) - set(KINDS):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return args


def main(argv: list[str]) -> int:
    args = arguments(argv)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {text}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what follows is cleaned up too
    guard = Guard()  # ends all that we start, also when we are killed ourselves
    keep = args.keep or Path(tempfile.mkdtemp(prefix="gristmill-chaos-"))
    keep.mkdir(parents=True, exist_ok=True)
    ray_folder = Path(tempfile.mkdtemp(prefix="gm", dir="/tmp"))  # Ray's sockets need a short path
    campaign = Campaign(args, keep, ray_folder, say)
    is_right = False
    try:
        campaign.play()
        is_right = True
    except Failed as failed:
        say(f"WRONG: {failed}")
    finally:
        campaign.stop()
        guard.stop()
        (keep / "kills.json").write_text(json.dumps(literals(campaign.costs), indent=2) + "\n")
        if is_right and not args.keep:
            shutil.rmtree(keep)
        if is_right:
            shutil.rmtree(ray_folder, ignore_errors=True)
        else:
            say(f"outputs and logs are in {keep}, those of Ray in {ray_folder}; `{replay(args)}` draws the same kills")
    told = [
        f"Seed {args.seed}, {len(campaign.costs)} kills in {campaign.num_runs} runs of {args.lots} lots; {versions()}.",
        table(campaign.costs),
        splits(campaign.costs),
        ends(campaign.costs),
    ]
    text = "\n\n".join(part for part in told if part)
    print(f"\n{text}\n", flush=True)
    if is_right and args.write:
        write(args.write, text)
    return 0 if is_right else 1


def replay(args: argparse.Namespace) -> str:
    words = [f"python -m tests.chaos --kills {args.kills} --seed {args.seed} --lots {args.lots}"]
    words += ["--teacher"] if args.teacher else []
    words += ["--endpoint"] if args.endpoint else []
    words += ["--beside"] if args.beside else []
    return " ".join([*words, f"--kinds {','.join(args.kinds)}"])


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
