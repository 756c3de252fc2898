"""`python -m benchmarks`, `make bench`: every benchmark in turn, a table of each, and benchmarks/results.json, part after part.

Its keys are stable. Four say how near the limit we are and how far ahead of what else there is, each with median, least, most and number of rounds:
`grpo_step_vs_trl` (TRL's seconds over ours), `update_gemm_share` (of this machine's bf16 matrix products), `sampling_vs_engine_alone`,
`appworld_episodes_vs_stock` (a second and core). The others are what they come from.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from apprentice.processes.limits import use_cores_sparingly
from apprentice.records.files import read_json, write_json
from benchmarks.figures import print_spreads
from benchmarks.parts import PARTS

RESULTS = Path("benchmarks/results.json")
MINUTES = 15


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    use_cores_sparingly()
    print(f"{', '.join(arguments.only)}: about {MINUTES * len(arguments.only) / len(PARTS):.0f} minutes", flush=True)
    for name in arguments.only:
        print(f"\n{name}", flush=True)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own_process:  # DeepSpeed does not give back all that it held
            figures = own_process.submit(PARTS[name], arguments.rounds).result()
        print_spreads(figures)
        write_json(arguments.results, (read_json(arguments.results) if arguments.results.exists() else {}) | figures)
    print(f"\n{arguments.results}")


if __name__ == "__main__":
    main()
