"""The files around the library agree with it and with each other: stages, deployments, pins, images."""

import re
from importlib.metadata import requires
from itertools import takewhile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from apprentice.config import Layout, load_pipeline, pipeline_names
from apprentice.config.stages import STAGES
from apprentice.config.usecases import shipped, watched_code

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")
COMPLETE = ("appworld.txt", "core.txt", "dev.txt", "serve.txt")
"""Installed with --no-deps, so every line is an exact pin."""


def read_yaml(name: str) -> dict:
    return YAML(typ="safe").load((ROOT / name).read_text(encoding="utf-8"))


def stages() -> dict:
    return {name: stage["do"] for name, stage in read_yaml("dvc.yaml")["stages"].items()}


def resolved(template: str, pipeline: str) -> str:
    watched = read_yaml("params.yaml")["active"][pipeline]
    return re.sub(r"\$\{item\.(\w+)\}", lambda part: watched[part[1]], template.replace("${key}", pipeline))


def outputs(stage: dict, pipeline: str) -> set[str]:
    entries = [*stage.get("outs", ()), *stage.get("metrics", ()), *stage.get("plots", ())]
    return {resolved(entry if isinstance(entry, str) else next(iter(entry)), pipeline) for entry in entries}


EXPECTED = {
    "prepare": lambda at: [at.raw],
    "validate": lambda at: [at.tasks, at.corpus, at.quarantine, at.data_docs, at.metrics("validation")],
    "distill": lambda at: [at.warm_start, at.metrics("distill")],
    "filter": lambda at: [at.curriculum, at.metrics("difficulty"), at.curves("difficulty")],
    "rollout": lambda at: [at.rollouts, at.rollout_quarantine, at.metrics("rollout")],
    "train": lambda at: [at.policy, at.train_quarantine, at.metrics("training"), at.curves("training")],
    "evaluate": lambda at: [at.evaluations, at.report, at.metrics("evaluation"), at.curves("evaluation")],
}


def test_dvc_runs_every_stage_for_every_active_pipeline():
    assert tuple(stages()) == tuple(STAGES)
    assert all(stage["foreach"] == "${active}" for stage in read_yaml("dvc.yaml")["stages"].values())
    assert list(read_yaml("params.yaml")["active"]) == ["quick"] and "quick" in pipeline_names(ROOT / "params.yaml")


@pytest.mark.parametrize("name", STAGES)
def test_dvc_and_layout_name_the_same_outputs(name: str):
    assert outputs(stages()[name], "quick") == {path.as_posix() for path in EXPECTED[name](Layout("quick"))}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_its_own_code_and_on_what_exists_before_it(name: str):
    stage = stages()[name]
    before = set().union(*(outputs(stages()[earlier], "quick") for earlier in takewhile(lambda stage: stage != name, STAGES)))
    dependencies = [resolved(dependency, "quick") for dependency in stage["deps"]]
    assert f"apprentice/stages/{name}.py" in dependencies
    assert all(dependency in before or str(Path(dependency).parent) in before for dependency in dependencies if not dependency.startswith("apprentice/"))


@pytest.mark.parametrize("name", STAGES)
def test_stage_dependencies_on_code_exist(name: str):
    found = [resolved(dependency, "quick") for dependency in stages()[name]["deps"]]
    missing = [dependency for dependency in found if dependency.startswith("apprentice/") and not (ROOT / dependency).exists()]
    assert not missing


@pytest.mark.parametrize("name", STAGES)
def test_stage_parameters_exist(name: str):
    sections = {field.alias or key: field.annotation for key, field in type(load_pipeline("quick", ROOT / "params.yaml")).model_fields.items()}
    for parameter in stages()[name]["params"]:
        prefix, pipeline, section, *key = resolved(parameter, "quick").split(".")
        assert (prefix, pipeline) == ("pipelines", "quick") and section in sections
        assert all(part in sections[section].model_fields for part in key)


@pytest.mark.parametrize("name", STAGES)
def test_how_the_server_is_run_reruns_nothing(name: str):
    whole = "pipelines.${key}.policy"
    assert not {whole, f"{whole}.port", f"{whole}.kv_cache_gib", f"{whole}.max_sequences", f"{whole}.gpus", f"{whole}.sleep"} & set(stages()[name]["params"])


def test_the_training_seed_reruns_train_and_what_follows():
    assert [name for name, stage in stages().items() if "pipelines.${key}.train" in stage["params"]] == ["train"]


def test_every_pipeline_is_deployed():
    deployments = read_yaml("pipelines.yaml")["deployments"]
    assert [deployment["parameters"]["pipeline"] for deployment in deployments] == pipeline_names(ROOT / "params.yaml")
    assert all(deployment["schedules"] for deployment in deployments)


def test_deployments_name_the_flow():
    for deployment in read_yaml("pipelines.yaml")["deployments"]:
        file, _, function = deployment["entrypoint"].partition(":")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMPLETE)
def test_complete_requirements_are_exact_and_sorted_out(name: str):
    lines = [line for line in (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert not [line for line in lines if not PIN.match(line)]
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines]
    assert len(names) == len(set(names)) and "torch" not in names


@pytest.mark.parametrize("name", ["core.txt", "serve.txt", "appworld.txt", "dev.txt", "trl.txt"])
def test_every_pin_is_installed_by_its_hash(name: str):
    def pins(text: str) -> set[tuple[str, str]]:
        found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)
        return {(re.sub(r"[-_.]+", "-", package).lower(), version) for package, version in found}

    listed, hashed = ((ROOT / "requirements" / folder / name).read_text(encoding="utf-8") for folder in ("", "hashes"))
    assert pins(listed) == pins(hashed) != set()
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\S)", hashed.strip()))


def test_pins_keep_prefects_server_whole():
    pins = dict(line.split("==") for line in (ROOT / "requirements/core.txt").read_text(encoding="utf-8").splitlines() if "==" in line)
    assert tuple(map(int, pins["fastapi"].split(".")[:2])) < (0, 151)
    assert tuple(map(int, pins["SQLAlchemy"].split(".")[:2])) < (2, 1)


def dockerfiles() -> list[Path]:
    return sorted((ROOT / "docker").glob("*.Dockerfile"))


def test_the_core_image_holds_the_code_of_every_use_case():
    text = (ROOT / "docker" / "core.Dockerfile").read_text(encoding="utf-8")
    copied = {source for line in text.splitlines() if line.startswith("COPY") for source in line.split()[1:-1]}
    assert {Path(path).parts[0] for name in shipped() for path in watched_code(name, ROOT).values()} <= copied


@pytest.mark.parametrize("path", dockerfiles(), ids=lambda path: path.name)
def test_images_copy_only_what_exists(path: Path):
    copies = [line.split()[1:-1] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("COPY") and "--from" not in line]
    sources = [word for copy in copies for word in copy if not word.startswith("--")]
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("path", dockerfiles(), ids=lambda path: path.name)
def test_images_do_not_run_as_root(path: Path):
    text = path.read_text(encoding="utf-8")
    users = [line.split()[1] for line in text.splitlines() if line.startswith("USER")]
    inherits = text.rpartition("FROM ")[2].startswith("apprentice-")
    assert inherits and not users or users[-1] == "apprentice"


def test_containers_publish_on_loopback_only():
    for name, service in read_yaml("docker/compose.yaml")["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        if "build" in service:
            assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_pytorch_s_own_dependencies_are_installed_as_pinned(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "requirements")
    import install

    steps = [step for _, steps in install.ROLES.values() for step in steps if step.file == "torch.txt"]
    wanted = {re.split(r"[<>=! ]", line)[0].lower().replace("-", "_") for line in requires("torch") if "extra ==" not in line and "sys_platform" not in line}
    assert len(steps) == 3 and {"sympy", "jinja2"} <= wanted
    for step in steps:
        constraints = Path(step.options[step.options.index("-c") + 1]).read_text(encoding="utf-8")
        pinned = {line.partition("==")[0].lower().replace("-", "_") for line in constraints.splitlines() if "==" in line}
        assert wanted - pinned - {"setuptools"} == set(), step.options
