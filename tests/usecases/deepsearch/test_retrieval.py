"""Retrievers find, order, and serve passages; an unreachable one is an infrastructure fault."""

import asyncio
import contextlib
import json
import threading
import time
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from apprentice.errors import ApprenticeError, InfrastructureFault
from apprentice.processes.network import free_port
from apprentice.records import Passage
from apprentice.usecases.deepsearch.config import RETRIEVER_AUTH, DeepSearchConfig
from apprentice.usecases.deepsearch.environment.retrieval import Bm25Retriever, HttpRetriever, make_retriever
from apprentice.usecases.deepsearch.environment.serving import create_app, listen

PASSAGES = (
    Passage(id="a", title="Lisbon", text="The capital of Portugal.\nIt lies on the Tagus."),
    Passage(id="b", title="Porto", text="A city of Portugal known for bridges."),
    Passage(id="c", title="Twin", text="Identical words."),
    Passage(id="d", title="Twin", text="Identical words."),
    Passage(id="e", title='The "Raven"', text="A poem."),
)


def search(retriever, *queries, top_k=2):
    return [[hit.passage.id for hit in hits] for hits in asyncio.run(retriever.search(queries, top_k))]


def test_bm25_finds_by_title_and_text_and_stems():
    assert search(Bm25Retriever(PASSAGES), "capital of Portugal", "bridge", "twins") == [["a", "b"], ["b"], ["c", "d"]]


def test_bm25_scores_fall():
    [hits] = asyncio.run(Bm25Retriever(PASSAGES).search(["Portugal capital"], 5))
    assert [hit.passage.id for hit in hits] == ["a", "b"] and hits[0].score > hits[1].score > 0


def test_bm25_breaks_ties_by_order():
    assert search(Bm25Retriever(PASSAGES), "identical", top_k=1) == [["c"]]
    assert search(Bm25Retriever(PASSAGES[::-1]), "identical", top_k=1) == [["d"]]


@pytest.mark.parametrize("query", ["", "   ", "zzzz", "the of", "?!", "\x00"])
def test_bm25_finds_nothing_for_queries_without_known_words(query):
    assert search(Bm25Retriever(PASSAGES), query) == [[]]


def test_bm25_answers_no_queries_with_nothing():
    assert search(Bm25Retriever(PASSAGES)) == []


def test_bm25_returns_fewer_hits_if_fewer_match():
    assert search(Bm25Retriever(PASSAGES), "lisbon", top_k=50) == [["a"]]


@pytest.mark.parametrize("passages", [(), (Passage(id="x", title="", text="the"),)])
def test_bm25_refuses_a_knowledge_base_without_words(passages):
    with pytest.raises(ApprenticeError, match="the knowledge base has no"):
        Bm25Retriever(passages)


def environment_config(retriever):
    return DeepSearchConfig(
        use="deepsearch", retriever=retriever, top_k=2, passage_tokens=5, max_turns=3, max_turn_tokens=9, max_failed_turns=3, max_tokens=99, concurrency=1
    )


def test_the_retriever_is_chosen_by_name():
    assert isinstance(make_retriever(environment_config("bm25"), PASSAGES), Bm25Retriever)
    assert make_retriever(environment_config("http://127.0.0.1:8000"), ()).url == "http://127.0.0.1:8000/retrieve"
    assert make_retriever(environment_config("http://127.0.0.1:8000/v2/retrieve"), ()).url == "http://127.0.0.1:8000/v2/retrieve"
    with pytest.raises(ApprenticeError, match="no retriever 'elastic'"):
        make_retriever(environment_config("elastic"), PASSAGES)


@contextlib.contextmanager
def serving(app):
    import uvicorn

    listener = listen(0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_our_server_and_client_agree_with_the_index_they_share():
    local = Bm25Retriever(PASSAGES)

    async def both(url):
        remote = HttpRetriever(url)
        queries = ["capital of Portugal", "raven", "zzzz"]
        answers = await remote.search(queries, 2), await local.search(queries, 2)
        await remote.close()
        return answers

    with serving(create_app(local)) as url:
        remote, expected = asyncio.run(both(url))
    assert [[(hit.passage.id, hit.passage.text, pytest.approx(hit.score)) for hit in hits] for hits in expected] == [
        [(hit.passage.id, hit.passage.text, hit.score) for hit in hits] for hits in remote
    ]
    assert remote[0][0].passage.title == "Lisbon" and remote[2] == []


def test_our_server_speaks_search_r1_with_and_without_scores():
    import httpx

    with serving(create_app(Bm25Retriever(PASSAGES))) as url:
        scored = httpx.post(f"{url}/retrieve", json={"queries": ["bridge"], "topk": 1, "return_scores": True}, trust_env=False).json()
        bare = httpx.post(f"{url}/retrieve", json={"queries": ["bridge"]}, trust_env=False).json()
        refused = httpx.post(f"{url}/retrieve", json={"queries": "bridge"}, trust_env=False)
    document = {"id": "b", "contents": '"Porto"\nA city of Portugal known for bridges.'}
    assert scored["result"] == [[{"document": document, "score": pytest.approx(scored["result"][0][0]["score"])}]]
    assert bare == {"result": [[document]]}
    assert refused.status_code == 422


def test_a_retriever_survives_the_event_loop_it_began_in():
    with serving(create_app(Bm25Retriever(PASSAGES))) as url:
        remote = HttpRetriever(url)
        assert search(remote, "lisbon") == search(remote, "lisbon") == [["a"]]


def test_an_unreachable_retriever_is_a_fault_of_the_infrastructure():
    port = free_port()
    with pytest.raises(InfrastructureFault, match=f"127.0.0.1:{port}/retrieve does not answer: ConnectError"):
        search(HttpRetriever(f"http://127.0.0.1:{port}"), "x")


def test_a_fault_of_a_retriever_does_not_contain_its_password():
    with serving(create_app(Bm25Retriever(PASSAGES))) as url:
        address = url.replace("http://", "http://me:hush@") + "/nowhere?key=hush"
        with pytest.raises(InfrastructureFault, match="404 Not Found") as fault:
            search(HttpRetriever(address), "x")
    assert "hush" not in str(fault.value)


def test_the_user_and_password_of_a_retriever_come_from_the_environment(monkeypatch):
    asked, app = [], create_app(Bm25Retriever(PASSAGES))

    @app.middleware("http")
    async def ask(request, call_next):
        asked.append(request.headers.get("authorization"))
        return await call_next(request)

    with serving(app) as url:
        search(HttpRetriever(url), "lisbon")
        monkeypatch.setenv(RETRIEVER_AUTH, "me:pass:word")
        search(HttpRetriever(url), "lisbon")
    assert asked == [None, "Basic " + b64encode(b"me:pass:word").decode()]


def test_a_silent_retriever_times_out():
    silent = listen(0)
    with pytest.raises(InfrastructureFault, match="ReadTimeout"):
        search(HttpRetriever(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2), "x")
    silent.close()


@pytest.mark.parametrize(
    "reply", [{"results": []}, {"result": []}, {"result": [[{"id": "a"}]]}, [], {"result": [[{"document": {"contents": ""}, "score": 1}]]}]
)
def test_another_protocol_is_a_fault_of_the_infrastructure(reply):
    class Stranger(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *_): ...

    server = HTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=server.handle_request, daemon=True).start()
    with pytest.raises(InfrastructureFault, match="does not speak Search-R1's protocol"):
        search(HttpRetriever(f"http://127.0.0.1:{server.server_port}"), "x")
    server.server_close()


def test_a_port_in_use_is_reported():
    taken = listen(0)
    with pytest.raises(ApprenticeError, match="cannot listen on port .*: Address already in use"):
        listen(taken.getsockname()[1])
    taken.close()
