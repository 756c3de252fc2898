"""The command line: `apprentice COMMAND …`. It parses its arguments first and imports heavy modules later."""

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from apprentice.config.stages import STAGES
from apprentice.config.usecases import find_use_case, shipped
from apprentice.errors import ApprenticeError, ExitCode
from apprentice.processes.limits import raise_file_limit
from apprentice.processes.network import bypass_proxies_on_loopback
from apprentice.processes.output import discard_output

PLANNED_GPUS = 8
NEEDED = ("torch", "transformers", "deepspeed", "prefect", "mlflow", "dvc", "great_expectations", "bm25s", "gguf", "pyarrow")
GPU_FLAGS = {
    "memory_gib": ("--gpu-memory", "GIB", "memory"),
    "tflops": ("--gpu-tflops", "TFLOPS", "peak dense bf16 compute"),
    "bandwidth_gbs": ("--gpu-bandwidth", "GB/S", "memory bandwidth"),
    "link_gbs": ("--gpu-link", "GB/S", "interconnect bandwidth in one direction"),
}
"""Field of `Hardware` -> the flag that overrides it, its unit, and its description."""
PHASES = {
    "sampling": "sampling, without tool calls",
    "old": "log-probabilities before the update",
    "reference": "log-probabilities of the reference",
    "update": "forward and backward passes",
    "optimizer": "optimizer steps",
    "ranks": "communication between ranks",
    "sync": "weight transfer to the policy server",
}
"""Field of `StepSeconds` -> its description."""
ROLES = {".venv": "core and trainer", ".venv-serve": "policy server"}
"""Required virtual environment -> its role."""
PIPELINE_HELP = "name of a pipeline in params.yaml"


def entry() -> None:
    """Run the command line and exit: with 2 on a user error, 130 on Ctrl-C, and 141 if the reader closed the output."""
    bypass_proxies_on_loopback()
    raise_file_limit()
    try:
        try:
            code = main()
        finally:
            sys.stdout.flush()
        sys.exit(code)
    except ApprenticeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.USER_ERROR)
    except BrokenPipeError:
        discard_output()
        sys.exit(ExitCode.UNREAD)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    chosen = _parser().parse_args(arguments)
    return chosen.command(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="apprentice", description="Train a language-model agent on your own checkable tasks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], words: str, pipeline: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=words, description=words)
        sub.set_defaults(command=command)
        if pipeline:
            sub.add_argument("pipeline", help=PIPELINE_HELP)
        return sub

    run = add("run", _run, "run the Prefect flow `customize`, which brings a pipeline up to date")
    run.add_argument("overrides", nargs="*", metavar="section.key=value", help="parameter to write into params.yaml before the run")
    stage = add("stage", _stage, "run one stage without DVC", pipeline=False)
    stage.add_argument("name", choices=STAGES, help="name of the stage")
    stage.add_argument("pipeline", help=PIPELINE_HELP)
    override = add("set", _set, "write parameters into params.yaml; unlike `dvc exp run -S`, it does not rewrite the rest of the file")
    override.add_argument("overrides", nargs="+", metavar="section.key=value", help="parameter to write")
    add("params", _params, "print the resolved parameters of a pipeline")
    add("register", _register, "log a pipeline's result to MLflow and register its trained policy")
    add("summary", _summary, "print the summary of a pipeline's last run")
    _add_plan_flags(add("plan", _plan, "estimate the memory and time that training needs on a machine, without running it"))
    for case in map(find_use_case, shipped()):
        for command in case.commands:
            command.arguments(add(command.name, command.run, command.words, pipeline=False))
    add("doctor", _doctor, "check what is installed", pipeline=False)
    return parser


def _add_plan_flags(plan: argparse.ArgumentParser) -> None:
    plan.add_argument("--gpu", default="h200", help="GPU type: h100, h200, or a100; cpu benchmarks this machine for a few seconds (default: h200)")
    plan.add_argument("--gpus", type=int, help=f"number of GPUs, or of processes that share the CPU (default: {PLANNED_GPUS}; with cpu: train.ranks)")
    for field, (flag, unit, words) in GPU_FLAGS.items():
        plan.add_argument(flag, dest=field, type=float, metavar=unit, help=f"{words} of one GPU (default: from its data sheet)")
    plan.add_argument("--utilisation", type=float, metavar="SHARE", help="share of the peak FLOP/s that the trainer reaches (default: planning/hardware.py)")
    plan.add_argument("--context", type=int, metavar="TOKENS", help="length of an episode (default: environment.max_tokens)")
    plan.add_argument("--actions", type=int, metavar="TOKENS", help="tokens that the policy samples per episode (default: what the turn limits allow)")
    plan.add_argument("--shared", type=int, default=0, metavar="TOKENS", help="length of the prompt prefix that a task's attempts share (default: 0)")


def _run(chosen: argparse.Namespace) -> int:
    # The flow replaces this process because the library does not import Prefect.
    if not Path("flows").is_dir():
        raise ApprenticeError("is missing: a pipeline runs in a project's folder", where="flows/", todo="run from the project's root")
    command = [sys.executable, "-m", "flows", chosen.pipeline, *chosen.overrides]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def _stage(chosen: argparse.Namespace) -> int:
    command = [sys.executable, "-m", f"apprentice.stages.{chosen.name}", chosen.pipeline]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def _set(chosen: argparse.Namespace) -> int:
    from apprentice.config import check_overrides, set_overrides
    from apprentice.config.locks import only_run

    check_overrides(chosen.pipeline, chosen.overrides)
    with only_run():
        for change in set_overrides(chosen.pipeline, chosen.overrides):
            print(change)
    return 0


def _params(chosen: argparse.Namespace) -> int:
    from ruamel.yaml import YAML

    from apprentice.config import load_pipeline

    YAML().dump(load_pipeline(chosen.pipeline).model_dump(mode="json", by_alias=True), sys.stdout)
    return 0


def _register(chosen: argparse.Namespace) -> int:
    from apprentice.config import Layout, load_pipeline

    config, layout = load_pipeline(chosen.pipeline), Layout(chosen.pipeline)

    from apprentice.tracking.registry import register
    from apprentice.tracking.runs import log_run
    from apprentice.versioning import output_hash, output_hashes

    checkpoint = output_hash(layout.policy, chosen.pipeline)
    tracked = log_run(config, layout, output_hashes(chosen.pipeline))
    entry = register(config, layout, tracked.run_id, checkpoint)
    print(f"{entry.name} version {entry.version}, {entry.alias}: {entry.reason}\n{tracked.command}   then {tracked.address}")
    return 0


def _summary(chosen: argparse.Namespace) -> int:
    from rich.console import Console

    from apprentice.config import Layout, load_pipeline
    from apprentice.summary import Place, summary

    config, layout = load_pipeline(chosen.pipeline), Layout(chosen.pipeline)
    Console().print(summary(config, layout, [Place("Report", f"python3 -m webbrowser {layout.report.resolve().as_uri()}")]), crop=False)
    return 0


def _plan(chosen: argparse.Namespace) -> int:
    """Print the plan and advice; return 1 if the model does not fit into memory."""
    from apprentice.config import load_pipeline
    from apprentice.planning.plan import expected_episodes, plan
    from apprentice.planning.shape import Shape
    from apprentice.policy.base_models import architecture

    config = load_pipeline(chosen.pipeline)
    if chosen.context is not None:
        config = config.model_copy(update={"environment": config.environment.model_copy(update={"max_tokens": chosen.context})})
    machine = _planned_hardware(chosen, config.train.ranks)
    shape, episodes = Shape.of(architecture(config.model.name)), expected_episodes(config, chosen.actions, chosen.shared)
    made, train = plan(config, shape, episodes, machine), config.train
    fits = made.total_gib <= machine.memory_gib
    gpus = f"{machine.gpus} x {chosen.gpu}, {machine.memory_gib:.0f} GiB each"
    print(f"{config.model.name}: {shape.parameters / 1e9:.1f} billion weights, {shape.layers} layers, on {gpus}")
    for name, size in made.memory_gib.items():
        print(f"  {size:8.1f} GiB per GPU  {name}")
    print(f"  {made.total_gib:8.1f} GiB per GPU  total: {'fits' if fits else 'does not fit'}")
    print(f"step: {train.tasks_per_step} tasks x {train.attempts} = {episodes.count} episodes of {episodes.tokens:,} tokens, {episodes.actions:,} sampled")
    print(f"      {train.epochs} x {train.minibatches} optimizer steps, {made.micro_batches_a_rank} micro-batches per GPU and optimizer step")
    for phase, words in PHASES.items():
        print(f"  {getattr(made.seconds, phase):8,.1f} s  {words}")
    print(f"  {made.seconds.total:8,.1f} s  total")
    print(f"training: {train.steps} steps, {made.optimizer_steps} optimizer steps, {made.tokens:,} tokens, {made.hours:,.1f} hours")
    print(f"advice: {_advice(config, shape, episodes, machine)}")
    return 0 if fits else 1


def _planned_hardware(chosen: argparse.Namespace, ranks: int) -> Any:
    """Return the machine that the flags of `plan` describe."""
    from apprentice.planning.hardware import THIS_MACHINE, hardware

    gpus = chosen.gpus if chosen.gpus is not None else ranks if chosen.gpu == THIS_MACHINE else PLANNED_GPUS
    given = {field: getattr(chosen, field) for field in GPU_FLAGS if getattr(chosen, field) is not None}
    machine = replace(hardware(chosen.gpu, gpus), **given)
    return machine if chosen.utilisation is None else machine.at(chosen.utilisation)


def _advice(config: Any, shape: Any, episodes: Any, machine: Any) -> str:
    """Return the parameters to set, as `make run ARGS=` takes them; if nothing fits, also the number of GPUs."""
    from apprentice.planning.advice import KNOBS, MOST_GPUS, advise, enough_gpus

    if train := advise(config, shape, episodes, machine):
        knobs = {f"train.{name}": getattr(train, name) for name in KNOBS} | {"train.ranks": machine.gpus, "policy.gpus": machine.gpus}
        return " ".join(f"{name}={str(value).lower()}" for name, value in knobs.items())
    if gpus := enough_gpus(config, shape, episodes, machine):
        return f"{gpus} GPUs, {_advice(config, shape, episodes, replace(machine, gpus=gpus))}"
    return f"an episode of {episodes.tokens:,} tokens does not fit even on {MOST_GPUS} of these GPUs"


def _doctor(_chosen: argparse.Namespace) -> int:
    """Print one line per requirement; return 1 if one is missing."""
    checks = [(f"{folder} ({words})", _is_set_up(Path(folder)), "make setup") for folder, words in ROLES.items()]
    checks += [(name, _installed(name), "make setup") for name in NEEDED]
    checks += [("git", _runs("git", "--version"), "install git"), ("g++", _runs("g++", "--version"), "install g++ (vLLM compiles on CPU)")]
    for name, well, todo in checks:
        print(f"{'ok     ' if well else 'MISSING'}  {name}" + ("" if well else f"   -> {todo}"))
    programs = {folder: words for case in map(find_use_case, shipped()) for folder, words in case.programs.items()}
    for words, there in (("NVIDIA GPU", _runs("nvidia-smi", "-L")), *((f"{folder} ({words})", _is_set_up(Path(folder))) for folder, words in programs.items())):
        print(f"{'found  ' if there else 'none   '}  {words} (optional)")
    return 0 if all(well for _, well, _ in checks) else 1


def _is_set_up(folder: Path) -> bool:
    return (folder / ".installed").is_file()


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _runs(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
