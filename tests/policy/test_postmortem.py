"""The root cause of a server's end, from logs as vLLM writes them."""

import textwrap

import pytest

from apprentice.policy.postmortem import root_cause

ENGINE, API = "(EngineCore pid=23760) ERROR 11-25 15:34:59 [core.py:1510] ", "(APIServer pid=23617) "
BANNER = "(APIServer pid=23617) INFO 11-25 15:34:57 [model.py:733] Resolved architecture: LlamaForCausalLM\n"
POINTER = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
WORKER = "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause."


def traceback(*exception: str, frames: int = 12, prefix: str = "") -> str:
    frame = ['  File "/x/vllm/entry.py", line 83, in build', "    vllm_config = create()", "                  ^^^^^^^^"]
    return "".join(f"{prefix}{line}\n" for line in ["Traceback (most recent call last):", *frame * frames, *exception])


def cause(folder, *parts: str) -> str:
    (folder / "server.log").write_text(BANNER + "".join(parts))
    return root_cause(folder / "server.log")


def test_the_exception_of_the_first_failed_process_is_the_root_cause(tmp_path):
    first = "safetensors._safetensors_rust.SafetensorError: Error while deserializing header"
    found = cause(tmp_path, traceback(first, prefix=ENGINE), "Process EngineCore:\n", traceback(first), traceback(POINTER, prefix=API))
    assert found == first


def test_a_workers_exception_comes_before_its_engines(tmp_path):
    first = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB."
    worker = "(Worker_TP1 pid=9) ERROR 11-25 15:34:59 [multiproc_executor.py:772] "
    assert cause(tmp_path, traceback(first, prefix=worker), traceback(WORKER, prefix=ENGINE), traceback(POINTER)) == first


def test_a_message_includes_its_further_lines(tmp_path):
    lines = ("pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig", "  Value error, max_model_len (9000) is greater than 4096")
    assert cause(tmp_path, traceback(*lines), "bye\n") == f"{lines[0]} {lines[1].strip()}"


@pytest.mark.parametrize(
    "link", ["The above exception was the direct cause of the following exception:", "During handling of the above exception, another exception occurred:"]
)
def test_chained_exceptions_are_shown_together(tmp_path, link):
    found = cause(tmp_path, traceback("KeyError: 'nosuch'"), f"\n{link}\n\n", traceback("ValueError: model type `nosuch` is unknown"), traceback(POINTER))
    assert found == "KeyError: 'nosuch'\nValueError: model type `nosuch` is unknown"


def test_an_error_that_the_server_survived_is_not_the_cause(tmp_path):
    dead = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause."
    survived, cause_of_death = traceback("ValueError: a bad request", prefix=API), traceback("RuntimeError: no memory", prefix=ENGINE)
    assert cause(tmp_path, survived, "(APIServer pid=1) INFO 11-25 15:34:57 [x.py:1] ok\n", cause_of_death, traceback(dead)) == "RuntimeError: no memory"


def test_a_warning_with_a_traceback_is_not_the_cause(tmp_path):
    warning = traceback("ImportError: no flash attention", prefix="(EngineCore pid=1) WARNING 11-25 15:34:58 [cuda.py:1] ")
    assert cause(tmp_path, warning, traceback("ValueError: the cause")) == "ValueError: the cause"


def test_two_adjacent_tracebacks_are_separate(tmp_path):
    assert cause(tmp_path, traceback("OSError: first"), traceback("OSError: second")) == "OSError: first"


def test_a_log_without_an_exception_gives_its_last_lines(tmp_path):
    usage = textwrap.dedent("""\
        usage: vllm serve [-h]
        vllm serve: error: unrecognized arguments: --kv-cache
        """)
    assert cause(tmp_path, *(f"line {number}\n" for number in range(20)), usage).splitlines() == ["line 17", "line 18", "line 19", *usage.splitlines()]


def test_an_empty_or_missing_log_is_reported(tmp_path):
    (tmp_path / "empty.log").touch()
    assert root_cause(tmp_path / "empty.log") == "its log is empty"
    assert "cannot be read" in root_cause(tmp_path / "absent.log")
