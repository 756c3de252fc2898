"""Serves a knowledge base on the loopback interface with Search-R1's protocol (`apprentice serve-index`)."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from apprentice.errors import ApprenticeError
from apprentice.records.tables import read_passages
from apprentice.usecases.deepsearch.environment.retrieval import Bm25Retriever, Hit, Retriever

if TYPE_CHECKING:
    from fastapi import FastAPI

HOST = "127.0.0.1"
DEFAULT_TOP_K = 3


def create_app(retriever: Retriever) -> "FastAPI":
    """Create the application with `POST /retrieve`, and `GET /health` as a readiness check."""
    from fastapi import FastAPI
    from pydantic import BaseModel, Field

    class Query(BaseModel):
        queries: list[str]
        topk: int | None = Field(default=None, ge=1)
        return_scores: bool = False

    app = FastAPI(title="Search-R1 retrieval")

    @app.post("/retrieve")
    async def retrieve(query: Query) -> dict:
        found = await retriever.search(query.queries, query.topk or DEFAULT_TOP_K)
        return {"result": [[_entry(hit, query.return_scores) for hit in hits] for hits in found]}

    @app.get("/health")
    async def health() -> dict:
        return {"status": "ok"}

    return app


def _entry(hit: Hit, with_score: bool) -> dict:
    document = {"id": hit.passage.id, "contents": f'"{hit.passage.title}"\n{hit.passage.text}'}
    return {"document": document, "score": hit.score} if with_score else document


def listen(port: int) -> socket.socket:
    """Open a listening socket on the loopback interface; port 0 selects a free one.

    Raises:
        ApprenticeError: the port is in use.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        what = f"cannot listen on port {port}: {error.strerror}"
        raise ApprenticeError(what, todo="choose another port with --port; 0 selects a free one") from None
    listener.listen(128)
    return listener


def serve(corpus: Path, port: int) -> None:
    """Serve the passages of a Parquet file until interrupted."""
    import uvicorn

    app = create_app(Bm25Retriever(read_passages(corpus)))
    listener = listen(port)
    print(f"http://{HOST}:{listener.getsockname()[1]}/retrieve", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
