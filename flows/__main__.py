"""The command line of the flow `customize`: `python -m flows PIPELINE [section.key=value …]`."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence

from apprentice.config import check_overrides
from apprentice.config.layout import RUNTIME
from apprentice.config.locks import only_run
from apprentice.errors import ApprenticeError, ExitCode
from apprentice.processes.limits import raise_file_limit
from apprentice.processes.output import discard_output
from apprentice.versioning import check_folder

UNREAD = (errno.EPIPE, errno.EIO)
"""Errors of writing to a pipe that nobody reads, and to a terminal that is gone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a pipeline and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows", description="Bring a pipeline up to date, from its data to a registered model.")
    parser.add_argument("pipeline", help="a pipeline of params.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="written into params.yaml first")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _hang_up)
    raise_file_limit()
    try:
        check_folder()
        check_overrides(chosen.pipeline, chosen.overrides)
        with only_run():  # refuses a second run at once; the flow takes the lock again before it writes
            pass
        return run(chosen.pipeline, chosen.overrides)
    except ApprenticeError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USER_ERROR
    except KeyboardInterrupt:
        print(f"\nStopped. `make run PIPELINE={chosen.pipeline}` continues from here.", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except SystemExit:  # rich's, where nobody reads what it prints
        return ExitCode.UNREAD
    except OSError as error:
        if error.errno not in UNREAD:
            raise
        discard_output()
        return ExitCode.UNREAD


def run(pipeline: str, overrides: Sequence[str]) -> int:
    """Run the flow on the configured Prefect server, or on a temporary one, and return the exit code."""
    from flows.server import prefect_server, set_defaults

    set_defaults(RUNTIME)
    print(f"{pipeline}: starting Prefect (about 20 s)", flush=True)
    with prefect_server(RUNTIME / "logs" / "prefect-server.log") as server:
        from apprentice.versioning import StageFailed
        from flows.customize import customize

        if server:
            server.wait()
        try:
            customize(pipeline, list(overrides))
        except StageFailed as failure:
            print(failure, file=sys.stderr)
            return failure.code if failure.code == ExitCode.USER_ERROR else ExitCode.FAILED
    return 0


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def _hang_up(*_) -> None:
    discard_output()
    raise KeyboardInterrupt


def _flushed(code: int) -> int:
    """`code`, once all output is written; ExitCode.UNREAD where nobody reads it."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return ExitCode.UNREAD
    return code


if __name__ == "__main__":
    try:
        code = main()
    except SystemExit as ended:  # raised by argparse
        code = ended.code
    code = _flushed(code)
    # Do not wait for Prefect's background threads: their server may be gone.
    os._exit(code)
