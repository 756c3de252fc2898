"""Runs every benchmark in turn, prints a table for each, and updates benchmarks/results.json after each.

    make bench

The keys of results.json are stable, and each holds the median, minimum, maximum, and number of rounds. Four keys
compare Apprentice with a limit or with other software: `grpo_step_vs_trl` (TRL's seconds divided by ours),
`update_gemm_share` (share of this machine's bf16 matrix products), `sampling_vs_engine_alone`, and
`appworld_episodes_vs_stock` (per second and core). The others are their inputs.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from apprentice.processes.limits import use_cores_sparingly
from apprentice.records.files import read_json, write_json
from benchmarks.metrics import print_spreads
from benchmarks.parts import PARTS

RESULTS = Path("benchmarks/results.json")
MINUTES = 15


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each part (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"parts to run: {', '.join(PARTS)}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file to update (default: %(default)s)")
    arguments = parser.parse_args()
    use_cores_sparingly()
    print(f"{', '.join(arguments.only)}: about {MINUTES * len(arguments.only) / len(PARTS):.0f} minutes", flush=True)
    for name in arguments.only:
        print(f"\n{name}", flush=True)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own_process:  # DeepSpeed does not free all its memory
            metrics = own_process.submit(PARTS[name], arguments.rounds).result()
        print_spreads(metrics)
        write_json(arguments.results, (read_json(arguments.results) if arguments.results.exists() else {}) | metrics)
    print(f"\n{arguments.results}")


if __name__ == "__main__":
    main()
