"""Sources of a base model, and the names that are refused."""

import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from apprentice.config import Layout, load_pipeline
from apprentice.errors import ApprenticeError
from apprentice.policy.base_models import architecture, base_model, starting_policy, tokenizer_folder
from apprentice.policy.packaged import MARKER, PACKAGED
from apprentice.records.files import write_json

NAME = "smollm2-135m-instruct"


def test_a_local_folder_is_used_in_place(tiny):
    assert base_model(str(tiny)) == tiny


def test_an_unknown_model_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ApprenticeError, match=NAME):
        base_model(str(tmp_path / "absent"))


def test_a_hub_id_that_cannot_be_fetched_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ApprenticeError, match="'nobody/nothing' cannot be fetched from Hugging Face"):
        base_model("nobody/nothing")


def test_a_cached_packaged_model_is_not_fetched_again(tmp_path):
    write_json(tmp_path / NAME / MARKER, {"gguf_sha256": PACKAGED[NAME].sha256})
    assert base_model(NAME, cache=tmp_path) == tmp_path / NAME


def test_base_model_does_not_import_torch(tiny):
    program = f"import sys; from apprentice.policy.base_models import base_model; base_model({str(tiny)!r}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


def test_training_starts_from_the_warm_start_or_from_the_base_model_it_names(tiny, copy, tmp_path):
    config = load_pipeline("quick")
    config = config.model_copy(update={"model": config.model.model_copy(update={"name": str(tiny)})})
    layout = Layout("quick", tmp_path)
    with pytest.raises(ApprenticeError, match="run the distill stage"):
        starting_policy(config, layout)
    write_json(layout.warm_start / "base.json", {"model": str(copy)})
    assert starting_policy(config, layout) == copy
    shutil.copy(tiny / "model.safetensors", layout.warm_start)
    assert starting_policy(config, layout) == layout.warm_start


@pytest.mark.parametrize("ask", [base_model, architecture, tokenizer_folder])
@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 300, "/" + "x" * 300])
def test_a_name_that_cannot_be_looked_up_is_one_error(ask, name):
    with pytest.raises(ApprenticeError, match="model.name=.* cannot be looked up"):
        ask(name)


@pytest.mark.parametrize("ask", [base_model, architecture, tokenizer_folder])
@pytest.mark.parametrize("name", ["models/typo", "own/typo", "./own/typo", "own/sub/typo", "typo"])
def test_a_missing_path_is_not_looked_up_on_hugging_face(ask, name, tmp_path, monkeypatch):
    (tmp_path / "own" / "policy").mkdir(parents=True)
    (tmp_path / "models" / "quick").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ApprenticeError, match=rf"no model '{name}'") as caught:
        ask(name)
    contents = {"models/typo": "; models contains quick", "own/typo": "; own contains policy", "./own/typo": "; own contains policy"}.get(name, "")
    assert str(caught.value).startswith(f"model.name: no model '{name}'{contents}\n  What to do: name one of {NAME}")


def test_a_file_is_refused(tmp_path):
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ApprenticeError, match="is a file, not a folder"):
        base_model(str(tmp_path / "model.gguf"))


def test_an_id_may_name_the_revision_that_is_fetched(tmp_path):
    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_): ...

    asked, server = [], HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = """
from apprentice.data.sources import open_source
from apprentice.errors import ApprenticeError
from apprentice.policy.base_models import tokenizer_folder
for fetch in (tokenizer_folder, open_source):
    try:
        fetch("some/thing@abc123")
    except ApprenticeError as error:
        print(error)
"""
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    server.shutdown()
    assert done.returncode == 0 and done.stdout.count("some/thing@abc123") >= 2, done.stderr
    assert [path for path in asked if path.endswith("models/some/thing/revision/abc123")], asked
    assert [path for path in asked if path.endswith("datasets/some/thing/revision/abc123")], asked
