"""The limits of a process."""

import subprocess
import sys

from apprentice.processes.limits import MAX_OPEN_FILES


def test_the_file_limit_is_raised_to_what_the_system_allows():
    program = (
        "import resource; from apprentice.processes.limits import raise_file_limit; raise_file_limit(); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    shown = subprocess.run(["bash", "-c", f'ulimit -S -n 256; ulimit -H -n; "{sys.executable}" -c "{program}"'], capture_output=True, text=True, check=True)
    allowed, raised = shown.stdout.split()
    assert int(raised) == (MAX_OPEN_FILES if allowed == "unlimited" else min(MAX_OPEN_FILES, int(allowed))) > 256
