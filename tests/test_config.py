"""params.yaml: unknown and missing keys, overrides, and every shipped YAML file."""

import json
import shutil
import stat
from functools import partial
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from apprentice.config import activate, load_pipeline, pipeline_names, set_overrides
from apprentice.config.locks import only_run
from apprentice.config.usecases import watched_code
from apprentice.errors import ApprenticeError

ROOT = Path(__file__).resolve().parent.parent
PARAMS = ROOT / "params.yaml"


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(PARAMS, tmp_path / "params.yaml"))


def edited(path: Path, before: str, after: str) -> Path:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", pipeline_names(PARAMS))
def test_every_shipped_pipeline_is_valid(name: str):
    assert load_pipeline(name, PARAMS).description


@pytest.mark.parametrize("file", ["params.yaml", "dvc.yaml", "pipelines.yaml", "docker/compose.yaml"])
def test_every_shipped_yaml_file_loads(file: str):
    assert isinstance(YAML(typ="safe").load((ROOT / file).read_text(encoding="utf-8")), dict)


def test_parameters_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_pipeline("quick", PARAMS).train.seed = 1


def test_unknown_key_is_refused_with_a_suggestion(params: Path):
    edited(params, "    tasks_per_step:", "    task_per_step:")
    with pytest.raises(ApprenticeError, match=r"unknown parameter 'train.task_per_step' \(did you mean 'tasks_per_step'\?\)"):
        load_pipeline("quick", params)


def test_missing_key_is_named(params: Path):
    edited(params, "    description: Natural Questions (open domain) over their Wikipedia passages.\n", "")
    with pytest.raises(ApprenticeError, match="'description' is missing"):
        load_pipeline("nq", params)


def test_wrong_value_is_named_with_what_was_given(params: Path):
    edited(params, "    tasks_per_step:", "    tasks_per_step: many #")
    with pytest.raises(ApprenticeError, match=r"train.tasks_per_step: .*not 'many'"):
        load_pipeline("nq", params)


def test_parameters_that_exclude_each_other_are_named_and_their_sections_not_printed(params: Path):
    set_overrides("quick", ["policy.sleep=true"], params)
    with pytest.raises(ApprenticeError) as raised:
        set_overrides("quick", ["train.overlap=true"], params)
    assert "train: overlap must be false with policy.sleep" in str(raised.value) and "learning_rate" not in str(raised.value)


def test_unknown_pipeline_is_refused_with_a_suggestion(params: Path):
    with pytest.raises(ApprenticeError, match=r"no pipeline 'quik' \(did you mean 'quick'\?\)"):
        load_pipeline("quik", params)


def test_broken_yaml_is_reported_with_its_line(params: Path):
    edited(params, "pipelines:\n", "pipelines: [\n")
    with pytest.raises(ApprenticeError, match=r"params.yaml:\d+: is not YAML"):
        load_pipeline("quick", params)


def test_latin_1_is_reported(params: Path):
    params.write_bytes(params.read_text(encoding="utf-8").replace("fictional", "fict\u00edonal").encode("latin-1"))
    with pytest.raises(ApprenticeError, match="not UTF-8"):
        load_pipeline("quick", params)


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.learning_rate=3e-6", "train", "learning_rate", 3e-6),
        ("train.seed=17", "train", "seed", 17),
        ("train.normalize_advantages=false", "train", "normalize_advantages", False),
        ("data.source=/some/folder", "data", "source", "/some/folder"),
        ("data.source=null", "data", "source", None),
        ("train.critic=separate", "train", "critic", "separate"),
    ],
)
def test_overrides_take_the_type_of_the_parameter(params: Path, override: str, section: str, key: str, value: object):
    set_overrides("quick", [override], params)
    found = getattr(getattr(load_pipeline("quick", params), section), key)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "http://127.0.0.1:8000",
        "s3://bucket/folder",
        "a: b",
        "a?",
        "? a",
        "x #y",
        "- a",
        "[a",
        "{a: b}",
        "*a",
        "C:\\data",
        "2024-01-01",
        "two\nlines",
        " blank first",
        "yes",
        "long " * 60,
    ],
)
def test_an_override_reads_back_as_it_was_written_now_and_after_the_next_one(params: Path, value: str):
    set_overrides("quick", [f"environment.retriever={value}"], params)
    assert load_pipeline("quick", params).environment.retriever == value
    before = params.read_text(encoding="utf-8").splitlines()
    set_overrides("quick", ["train.seed=17"], params)
    assert load_pipeline("quick", params).environment.retriever == value
    after = params.read_text(encoding="utf-8").splitlines()
    assert len([line for line in after if line not in before]) == 1


def test_no_message_about_an_override_tells_a_password(params: Path):
    secret = "http://host:8000/retrieve?key=hush"
    said = set_overrides("quick", [f"environment.retriever={secret}"], params)
    said += set_overrides("quick", ["environment.retriever=bm25"], params)
    assert "retriever: bm25 -> http://host:8000/retrieve?…" in said[0] and "retriever: http://host" in said[1]
    with_password = "environment.retriever=http://me:hush@host:8000"
    for override in (with_password, secret, f"environment.retreiver={secret}", f"enviroment.retriever={secret}", f"train.steps={secret}"):
        with pytest.raises(ApprenticeError) as refused:
            set_overrides("quick", [override], params)
        said.append(str(refused.value))
    assert not [text for text in said if "hush" in text]


def test_quotes_of_the_file_and_of_an_override_mean_what_they_mean_in_yaml(params: Path):
    edited(params, "format: nq", "source: 's3://a:b', format: nq")
    set_overrides("nq", ["train.seed=17"], params)
    assert load_pipeline("nq", params).data.source == "s3://a:b"
    set_overrides("nq", ["data.source='123'"], params)
    assert load_pipeline("nq", params).data.source == "123"


def test_a_file_that_would_read_back_differently_is_not_written(params: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("apprentice.config.load.DoubleQuotedScalarString", str)
    before = params.read_bytes()
    with pytest.raises(ApprenticeError, match="would not parse to the same values"):
        set_overrides("quick", ["data.source=s3://a:b"], params)
    assert params.read_bytes() == before


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("learning_rate: 3.0e-5", "learning_rate: .inf", "train.learning_rate: input should be a finite number, not inf"),
        ("learning_rate: 3.0e-5", "learning_rate: abc", "train.learning_rate: input should be a valid number, not 'abc'"),
        ("margin: 0.0", "margin: .nan", "register.margin: input should be a finite number, not nan"),
        ("steps: 16", "steps: true", "train.steps: input should be a valid integer, not True"),
        ("hardness: 0.5, unsolved_share: 0.1, temperature: 1.0, seed: 0", "hardness: 0.5, unsolved_share: 0.1, temperature: 1.0, seed: -1", "filter.seed"),
        ("source: null, seed: 0", "source: null, seed: 4294967296", "data.seed: input should be less than 4294967296"),
    ],
)
def test_an_invalid_value_in_the_file_is_refused(params: Path, before: str, after: str, message: str):
    edited(params, before, after)
    with pytest.raises(ApprenticeError, match=message):
        load_pipeline("nq", params)


@pytest.mark.parametrize("name", ["../quick", "a/b", ".hidden", "-x", "a b", "x" * 65, "a\nb", "<b>"])
def test_an_invalid_pipeline_name_is_refused(params: Path, name: str):
    edited(params, "  quick:\n    description", f"  {json.dumps(name)}:\n    description")
    for read in (pipeline_names, partial(load_pipeline, "nq"), partial(set_overrides, "nq", ["train.seed=3"])):
        with pytest.raises(ApprenticeError, match="is not a valid pipeline name"):
            read(path=params)


def test_the_runtime_folder_is_private_to_its_user(tmp_path):
    (tmp_path / ".apprentice").mkdir(mode=0o755)
    with only_run(tmp_path):
        assert stat.S_IMODE((tmp_path / ".apprentice").stat().st_mode) == 0o700


def test_override_changes_one_pipeline_only(params: Path):
    set_overrides("quick", ["train.seed=17"], params)
    assert load_pipeline("nq", params).train.seed == load_pipeline("nq", PARAMS).train.seed


def test_override_keeps_comments_anchors_and_merge_keys(params: Path):
    set_overrides("quick", ["train.seed=17"], params)
    text = params.read_text(encoding="utf-8")
    assert text.startswith("# Every parameter of every pipeline.")
    assert "train: &train" in text and text.count("<<: *train") == PARAMS.read_text(encoding="utf-8").count("<<: *train")


def test_override_says_what_it_changed(params: Path):
    (line,) = set_overrides("quick", ["train.seed=17"], params)
    assert line.endswith("pipelines.quick.train.seed: 0 -> 17")


def test_override_with_the_same_value_leaves_the_file_as_it_is(params: Path):
    before = params.read_bytes()
    assert set_overrides("quick", ["train.seed=0"], params) == []
    assert params.read_bytes() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.seed", "is not an override"),
        ("train.sed=1", "did you mean 'seed'"),
        ("trian.seed=1", "did you mean 'train'"),
        ("train.seed=often", "train.seed"),
        ("train.clip_low=2", "train.clip_low"),
        ("train.dual_clip=0.5", "must be 0, or above 1"),
        ("train.learning_rate=inf", "finite number"),
        ("train.learning_rate=abc", "valid number, not 'abc'"),
        ("train.seed=-1", "greater than or equal to 0, not -1"),
        ("train.seed=4294967296", "less than 4294967296"),
        ("train.steps=true", "valid integer, not True"),
    ],
)
def test_a_refused_override_leaves_the_file_as_it_is(params: Path, override: str, message: str):
    before = params.read_bytes()
    with pytest.raises(ApprenticeError, match=message):
        set_overrides("quick", ["train.steps=3", override], params)
    assert params.read_bytes() == before


def test_a_penalty_without_an_expected_gradient_is_refused(params: Path):
    with pytest.raises(ApprenticeError, match="train: kl_estimator: k1 in the loss has an expected gradient of 0; set kl_in: reward, or"):
        set_overrides("quick", ["train.kl_estimator=k1"], params)
    set_overrides("quick", ["train.kl_estimator=k1", "train.kl_in=reward"], params)
    set_overrides("quick", ["train.kl_in=loss", "train.kl_coefficient=0"], params)


def test_gspo_with_clip_ranges_for_tokens_is_refused_and_its_own_are_named(params: Path):
    own = "loss_mean: sequence and clip ranges of at most 0.05 .clip_low: 0.0003 and clip_high: 0.0004 in its paper."
    for given in ([], ["train.loss_mean=sequence"], ["train.clip_low=3e-4", "train.clip_high=4e-4"], ["train.loss_mean=sequence", "train.clip_low=3e-4"]):
        with pytest.raises(ApprenticeError, match=f"train: objective: gspo .* needs {own}, but the settings are "):
            set_overrides("quick", ["train.objective=gspo", *given], params)
    set_overrides("quick", ["train.objective=gspo", "train.loss_mean=sequence", "train.clip_low=3e-4", "train.clip_high=4e-4"], params)


def test_an_activated_pipeline_is_known_to_dvc_once_and_comments_stay(params: Path):
    activate("quick", params)
    before = params.read_text(encoding="utf-8")
    activate("nq", params)
    activate("nq", params)
    added = "".join(f"    {part}: {path}\n" for part, path in watched_code("deepsearch", params.parent).items())
    assert params.read_text(encoding="utf-8") == f"{before}  nq:\n{added}"


def test_an_unknown_pipeline_is_not_activated(params: Path):
    with pytest.raises(ApprenticeError, match="did you mean 'musique'"):
        activate("musik", params)


def test_a_dual_clip_that_the_objective_would_ignore_is_refused(params: Path):
    with pytest.raises(ApprenticeError, match="train: objective: cispo .* does not support dual_clip; set dual_clip: 0.0"):
        set_overrides("quick", ["train.objective=cispo", "train.dual_clip=3.0"], params)
    set_overrides("quick", ["train.objective=cispo"], params)
