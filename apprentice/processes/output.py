"""Controls what this process prints: silences libraries, and discards output that nobody reads."""

import os


def discard_output() -> None:
    """Redirect standard output and error to /dev/null, once their reader is gone and every write would fail."""
    with open(os.devnull, "w") as null:
        for stream in (1, 2):
            os.dup2(null.fileno(), stream)


def quiet_libraries() -> None:
    """Suppress Transformers' progress bars, and DeepSpeed's messages about a missing GPU."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
