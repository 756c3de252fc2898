"""Runs the flow `customize`: `python -m flows PIPELINE [section.key=value …]`."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence

from apprentice.config import check_overrides
from apprentice.config.layout import RUNTIME
from apprentice.config.locks import only_run
from apprentice.errors import ApprenticeError
from apprentice.processes.limits import raise_file_limit
from apprentice.processes.output import discard_output
from apprentice.versioning import check_folder

EXIT_FAILED, EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_UNREAD = 1, 2, 130, 141
UNREAD = (errno.EPIPE, errno.EIO)
"""Errors of writing to a pipe that nobody reads, and to a terminal that is gone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a pipeline; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows", description="Brings a pipeline up to date, from its data to a registered model.")
    parser.add_argument("pipeline", help="a pipeline of params.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="written into params.yaml first")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _hang_up)
    raise_file_limit()
    try:
        check_folder()
        check_overrides(chosen.pipeline, chosen.overrides)
        with only_run():  # the flow takes it again before it writes; this tells a second run within a second
            pass
        return run(chosen.pipeline, chosen.overrides)
    except ApprenticeError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        # Whatever comes now, such as a second Ctrl-C, must not hide this line.
        print(f"\nStopped. `make run PIPELINE={chosen.pipeline}` continues from here.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except SystemExit:  # rich's, where nobody reads what it prints
        return EXIT_UNREAD
    except OSError as error:
        if error.errno not in UNREAD:
            raise
        discard_output()
        return EXIT_UNREAD


def run(pipeline: str, overrides: Sequence[str]) -> int:
    """Runs the flow on a Prefect server, a temporary one where none is configured; returns the exit code."""
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
            return failure.code if failure.code == EXIT_USER_ERROR else EXIT_FAILED
    return 0


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def _hang_up(*_) -> None:
    discard_output()
    raise KeyboardInterrupt


def _flushed(code: int) -> int:
    """`code`, once all output is written; EXIT_UNREAD where nobody reads it."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return EXIT_UNREAD
    return code


if __name__ == "__main__":
    try:
        code = main()
    except SystemExit as ended:  # argparse's
        code = ended.code
    code = _flushed(code)
    # Prefect's background threads may wait for a server that is gone; nothing is left to do.
    os._exit(code)
