"""Measures the speed of passage retrieval and of writing trajectories."""

import asyncio
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.metrics import spread

PASSAGES = 20_000
QUERIES = 500
TRAJECTORIES = 2_000


def metrics(rounds: int) -> dict:
    """Returns BM25 queries per second over `PASSAGES` generated passages of 40 words, and trajectories of 200 tokens
    written to Parquet per second."""
    return {
        "retrieval_queries_per_second": spread(asyncio.run(_queries_per_second(rounds))),
        "trajectories_written_per_second": spread(_written_per_second(rounds)),
    }


async def _queries_per_second(rounds: int) -> list[float]:
    from apprentice.records import Passage
    from apprentice.usecases.deepsearch.environment.retrieval import Bm25Retriever

    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(5_000)]
    texts = [" ".join(rng.choices(words, k=40)) for _ in range(PASSAGES)]
    retriever = Bm25Retriever([Passage(id=str(number), title=text[:14], text=text) for number, text in enumerate(texts)])
    found = []
    for _ in range(rounds):
        queries = [" ".join(rng.choices(words, k=8)) for _ in range(QUERIES)]
        began = time.perf_counter()
        for query in queries:
            await retriever.search([query], 3)
        found.append(QUERIES / (time.perf_counter() - began))
    return found


def _written_per_second(rounds: int) -> list[float]:
    from apprentice.records import Trajectory
    from apprentice.records.tables import write_trajectories

    rng, length = random.Random(0), 200
    ids, mask, logprobs = tuple(rng.randrange(40_000) for _ in range(length)), (0, 1) * (length // 2), (0.0, -0.5) * (length // 2)
    one = Trajectory("", "t", "g", ids, mask, logprobs, (), 1.0, "success", "", 0, 1.0)
    many, found = [replace(one, id=str(number)) for number in range(TRAJECTORIES)], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            began = time.perf_counter()
            write_trajectories(Path(folder) / f"{number}.parquet", many)
            found.append(TRAJECTORIES / (time.perf_counter() - began))
    return found
