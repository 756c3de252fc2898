"""The command line of a stage: `python -m apprentice.stages.<name> <pipeline>`."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from apprentice.config import Layout, PipelineConfig, load_pipeline
from apprentice.config.layout import PARAMS
from apprentice.config.load import check_active
from apprentice.config.locks import reading_params
from apprentice.errors import ApprenticeError, ExitCode, InfrastructureFault
from apprentice.processes.limits import raise_file_limit, use_cores_sparingly
from apprentice.processes.network import bypass_proxies_on_loopback
from apprentice.records.events import Progress
from apprentice.versioning.dvc import recorded_parameters
from apprentice.versioning.folder import STAGES_FILE

Stage = Callable[[PipelineConfig, Layout, Progress], None]


def main(run: Stage) -> None:
    """Run the stage for the pipeline on the command line; exit with 2 on a user error and 3 on a transient fault."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(prog=f"python -m apprentice.stages.{name}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("pipeline", help="name of a pipeline in params.yaml")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(_exit_code(run, name, arguments.pipeline))


def _exit_code(run: Stage, name: str, pipeline: str) -> int:
    try:
        with reading_params(), _unchanged_parameters(name, pipeline):
            config, layout = load_pipeline(pipeline), Layout(pipeline)
            if STAGES_FILE.is_file():
                check_active(pipeline)
            progress = Progress(layout.events, name)
            progress.begin()
            _prepare_process()
            run(config, layout, progress)
        progress.end()
    except ApprenticeError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USER_ERROR
    except InfrastructureFault as fault:
        print(f"fault: {fault}", file=sys.stderr)
        return ExitCode.FAULT
    except KeyboardInterrupt:
        print(f"interrupted: stage {name}; run it again to continue", file=sys.stderr)
        return ExitCode.INTERRUPTED
    return 0


@contextmanager
def _unchanged_parameters(stage: str, pipeline: str) -> Iterator[None]:
    """Fail if the stage's parameters change while the block runs.

    DVC records the parameters that it finds when a stage ends. A failed stage is not recorded.

    Raises:
        ApprenticeError: params.yaml no longer holds the values that the stage started with.
    """
    before = recorded_parameters(stage, pipeline)
    yield
    after = recorded_parameters(stage, pipeline)
    changed = [key for key in before if before[key] != after[key]]
    if changed:
        what = f"{', '.join(changed)} changed while the stage {stage} ran with the old values, so its result is not recorded"
        raise ApprenticeError(what, where=PARAMS, todo="run again, and do not edit params.yaml while a stage runs")


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def _prepare_process() -> None:
    """Set what libraries read at import: no telemetry, no progress bars, and no busy waiting on shared cores.

    Also bypass proxies for servers on this machine, and raise the limit on open files to the system's maximum.
    """
    use_cores_sparingly()
    bypass_proxies_on_loopback()
    raise_file_limit()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
