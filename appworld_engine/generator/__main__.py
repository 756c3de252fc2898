"""Generates a data root: `python -m generator --root DIR --seed N`.

It prints progress as JSON lines. If it fails, it exits with 2 and prints one line on stderr.
"""

import argparse
import json
import os
import sys
from pathlib import Path

HASH_SEED = "0"


def main() -> int:
    """Parse the command line and build the data root."""
    parser = argparse.ArgumentParser(prog="generator", description="Generate an AppWorld data root.")
    parser.add_argument("--root", type=Path, required=True, help="folder to create; it must not exist or be empty")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--scenarios", type=int, help="number of scenarios to keep, in proportion from each split")
    parser.add_argument("--variants", type=int, default=3, help="tasks per training scenario, from 3 (as in AppWorld) to 9; the others have 3")
    parser.add_argument("--progress", action="store_true", help='print {"done", "total", "task"} after every task')
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        # AppWorld writes some sets in iteration order, so the same bytes need the same hashes.
        os.execve(sys.executable, [*sys.orig_argv[:1], "-m", "generator", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": HASH_SEED})
    os.environ["APPWORLD_ROOT"] = str(arguments.root)  # AppWorld reads it when it is imported

    from generator.build import build
    from generator.draft import GenerationError

    def report(done: int, total: int, task: str) -> None:
        if arguments.progress:
            print(json.dumps({"done": done, "total": total, "task": task}), flush=True)

    try:
        build(arguments.root.absolute(), arguments.seed, arguments.scenarios, arguments.variants, report)
    except GenerationError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
