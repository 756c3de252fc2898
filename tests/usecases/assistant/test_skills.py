"""Functions kept for later tasks: which ones qualify, and that another world defines them."""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from apprentice.config import load_pipeline
from apprentice.config.schema import EnvironmentConfig
from apprentice.errors import ApprenticeError
from apprentice.online.sequential_rollout import SequentialRollout
from apprentice.policy.protocol import Completion, Sampling
from apprentice.records import Skill, SkillLibrary, Task
from apprentice.rollout.expert import enact
from apprentice.rollout.simulator import Simulator, plan_episodes
from apprentice.usecases.assistant.environment.appworld import AppWorldEnvironment, KeptFunctions, fenced
from apprentice.usecases.assistant.environment.expert import expert_actions
from apprentice.usecases.assistant.environment.skills import TAKEN, notice, prelude, skills_of, with_skills

PARAMS = Path(__file__).parents[3] / "params.yaml"
PAGES = '''
import os
@keep
def pages(api, limit: int = 20, **arguments) -> "Rows":
    """Everything that a paged API lists.

    Slowly.
    """
    return [row for page in range(9) for row in api(page_index=page, page_limit=limit, **arguments)]
print(len(pages(apis.spotify.show_song_library)))
'''


def test_a_marked_function_with_a_docstring_is_kept():
    [skill] = skills_of(PAGES, "s")
    assert (skill.scenario, skill.name, skill.signature) == ("s", "pages", "pages(api, limit=20, **arguments)")
    assert skill.description == "Everything that a paged API lists." and skill.code.startswith("def pages(api, limit=20, **arguments):")
    assert "@" not in skill.code and "Rows" not in skill.code


@pytest.mark.parametrize(
    "code",
    [
        'def f():\n    """Not marked."""',
        "@keep\ndef f():\n    return 1",
        '@keep\ndef f():\n    """  """',
        '@keep\n@cache\ndef f():\n    """Another mark."""',
        '@keep\ndef f(x=token):\n    """Its default lives in this world only."""',
        '@keep\nasync def f():\n    """Not a plain one."""',
        'if True:\n    @keep\n    def f():\n        """Not at the top."""',
        '@keep\nclass F:\n    """No function."""',
        "@keep\ndef f(:",
        f'@keep\ndef f():\n    """{"Long. " * 40}"""',
        '@keep\ndef f():\n    """Half a character: \\ud800."""',
        '@keep\ndef print(*words):\n    """Named as a function that every world has."""',
        '@keep\ndef apis():\n    """Named as the apps."""',
        '@keep\ndef keep(function):\n    """Named as the mark."""',
        '@keep\ndef requester():\n    """Named as what stands behind the apps."""',
        '@keep\ndef __build_class__():\n    """Named as a part of Python."""',
        '@keep\ndef json():\n    """Named as a module that every world has."""',
        "x = '\x00'",
        "(" * 500,
        "-" * 20_000 + "1",
        "a" + ".b" * 20_000,
    ],
)
def test_a_function_that_does_not_qualify_is_not_kept(code):
    assert skills_of(code, "s") == []


def test_the_prelude_defines_the_mark_and_the_functions():
    names = {}
    exec(prelude(skills_of(PAGES, "s")), names)  # noqa: S102
    assert names["pages"](lambda page_index, page_limit: [page_index] * page_limit, limit=1) == list(range(9))
    assert names["keep"](len) is len
    assert "pages(api, limit=20, **arguments): Everything that a paged API lists." in notice(skills_of(PAGES, "s"))


BEGIN = "\ue001"


class ScriptedPolicy:
    """A policy that replays scripted actions by task."""

    def __init__(self, actions: dict[str, Sequence[str]]):
        self._actions, self.asked = actions, []

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        prompt = "".join(map(chr, token_ids))
        self.asked.append(prompt)
        actions = next(actions for instruction, actions in self._actions.items() if instruction in prompt)
        written = tuple(map(ord, actions[prompt.count(BEGIN) - 1]))
        return Completion(written, tuple(-0.5 for _ in written), "stop", version=0)


class Characters:
    """A chat format whose tokens are characters; a private one begins each of the agent's turns."""

    end_token_id = 0xE000

    def prompt(self, text: str) -> list[int]:
        return self.encode(text + BEGIN)

    def reply(self, text: str, ended: bool) -> list[int]:
        return self.prompt(text)

    def action(self, text: str) -> list[int]:
        return self.encode(text)

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def test_what_the_first_task_kept_solves_the_second(client, loop, appworld_root, task_ids):
    """Two variants of one scenario on the real engine: the first keeps a function that reports the second as done."""
    first, second = (of_root(appworld_root, id) for id in variants_of_one(task_ids))
    finish = '@keep\ndef finish():\n    """Reports the task as done."""\n    return apis.supervisor.complete_task()'
    plan = [fenced(block) for block in second.plan]
    reports = second.plan[-1].replace("apis.supervisor.complete_task", "finish")
    assert reports != second.plan[-1]
    policy = ScriptedPolicy({first.instruction: [fenced(finish), fenced("finish()")], second.instruction: [*plan[:-1], fenced(reports)]})
    limits = EnvironmentConfig(use="toy", max_turns=40, max_turn_tokens=5000, max_failed_turns=3, max_tokens=200_000, concurrency=2)
    config = load_pipeline("assistant", PARAMS).environment.model_copy(update={"skills": True})
    library = SkillLibrary()
    simulator = Simulator(policy, Characters(), lambda: AppWorldEnvironment(client, config), limits, temperature=1.0)
    chains = SequentialRollout(simulator, KeptFunctions(), [first, second], 1.0, library, seed=0)

    async def play():
        return [played async for played in chains.played(plan_episodes([first], 2, 0, "x"))]

    played = loop.run_until_complete(asyncio.wait_for(play(), 240))
    assert len(played) == 2
    for one in played:
        assert (one.trajectory.outcome, one.trajectory.reward) == ("failure", 1.0), "reported as done without doing it, but its function was used"
        assert (one.then.trajectory.outcome, one.then.trajectory.reward) == ("success", 2.0), one.then.trajectory.turns[-1]
    assert [skill.name for skill in library.of(first.scenario)] == ["finish"]
    assert any("finish(): Reports the task as done." in prompt for prompt in policy.asked)
    assert chains.metrics == {"chains": 2, "chains_kept": 1, "chains_used": 1, "chains_solved": 1, "chains_proven": 1, "skills": 1}


def test_every_name_that_a_world_defines_is_taken(client, loop, task_ids):
    async def play():
        world = await client.open(task_ids[0], "names")
        try:
            return await world.execute("print('\\n'.join([*globals(), *dir(builtins)]))")
        finally:
            await world.close()

    names = {name for name in loop.run_until_complete(play()).output.split() if not name.startswith("_")}
    assert len(names) > 100 and names <= TAKEN, names - TAKEN


SHOW = '''@keep
def show():
    """Shows who I am."""
    return apis.supervisor.show_profile()'''
USES = {
    "token = show()": True,
    "list(map(lambda _: show(), [1]))": True,
    "def f():\n    return show()\nf()": True,
    "if False:\n    show()": False,
    "def f():\n    return show()": False,
    "show": False,
    "'show()'": False,
    "try:\n    raise ValueError\n    show()\nexcept ValueError:\n    apis.supervisor.show_profile()": False,
    "def show():\n    return apis.supervisor.show_profile()\nshow()": False,
    "show = apis.supervisor.show_profile\nshow()": False,
    "show.__wrapped__()": False,
}


@pytest.mark.parametrize("code", USES)
def test_a_function_counts_as_used_if_it_ran_and_called_an_app(client, loop, appworld_root, task_ids, code):
    [show] = skills_of(SHOW, "s")
    [idle] = skills_of('@keep\ndef idle():\n    """Calls nothing."""\n    return 1', "s")
    [fails] = skills_of('@keep\ndef fails():\n    """Fails."""\n    return apis.spotify.login(username="x", password="y")', "s")
    skills = (show, idle, fails)
    task = of_root(appworld_root, task_ids[0]).model_copy(update={"skills": skills})
    block = f"idle()\ntry:\n    fails()\nexcept Exception:\n    pass\n{code}"
    config = load_pipeline("assistant", PARAMS).environment.model_copy(update={"skills": True})
    limits = EnvironmentConfig(use="toy", max_turns=1, max_turn_tokens=5000, max_failed_turns=3, max_tokens=200_000, concurrency=1)
    policy = ScriptedPolicy({task.instruction: [fenced(block)]})
    simulator = Simulator(policy, Characters(), lambda: AppWorldEnvironment(client, config), limits, temperature=1.0)
    [trajectory] = loop.run_until_complete(asyncio.wait_for(simulator.run(plan_episodes([task], 1, 0, "x")), 240))
    assert trajectory.turns[0].kind == "code", trajectory.turns[0]
    assert KeptFunctions().used(skills, trajectory) == ([show] if USES[code] else [])


def test_the_expert_keeps_how_to_log_in_and_uses_it_in_the_next_task(client, loop, appworld_root, task_ids):
    first, second = (of_root(appworld_root, id) for id in variants_of_one(task_ids))
    config = load_pipeline("assistant", PARAMS).environment.model_copy(update={"skills": True, "max_tokens": 200_000, "max_turn_tokens": 5000})

    def enacted(task):
        expert, environment = partial(expert_actions, keeps=True), AppWorldEnvironment(client, config)
        return loop.run_until_complete(asyncio.wait_for(enact(task, environment, Characters(), expert, limits=config, seed=0), 240))

    reader, trace = KeptFunctions(), enacted(first)
    [skill] = reader.kept(first, trace)
    assert skill.name == "log_in" and skill.description.startswith("Logs me in; gives ") and skill.code.count(".login(") >= 1
    follow = second.model_copy(update={"skills": (skill,)})
    again = enacted(follow)
    assert again.outcome == "success" and reader.used(follow.skills, again) == [skill]
    assert not any(".login(" in turn.action for turn in again.turns) and any("splitwise.login 200" in turn.calls for turn in again.turns)


def test_an_expert_that_logs_in_with_names_from_elsewhere_keeps_nothing():
    for plan in (["x = 1", "token = apis.a.login(password=x)['token']", "print(token)"], ["print(1)"], ["print(apis.a.login())"]):
        assert with_skills(plan, ()) == plan


def variants_of_one(task_ids: Sequence[str]) -> tuple[str, str]:
    """Return the first two tasks of one scenario."""
    scenario = task_ids[0].rpartition("_")[0]
    return tuple([id for id in task_ids if id.rpartition("_")[0] == scenario][:2])


def of_root(root: Path, task_id: str) -> Task:
    folder = root / "data" / "tasks" / task_id
    instruction = json.loads((folder / "specs.json").read_text())["instruction"]
    plan = json.loads((folder / "ground_truth" / "steps.json").read_text())
    return Task(id=task_id, scenario=task_id.rpartition("_")[0], split="train", instruction=instruction, judge="environment", plan=plan)


def test_a_library_with_an_invalid_line_is_refused_by_line(tmp_path):
    library = SkillLibrary([Skill(scenario="s", name=f"f{n}", signature="f()", description="F.", code="def f(): pass") for n in range(6)])
    library.write(tmp_path / "skills.jsonl")
    assert [skill.name for skill in SkillLibrary.read(tmp_path / "skills.jsonl").of("s")] == ["f2", "f3", "f4", "f5"]
    assert len(SkillLibrary.read(tmp_path / "none.jsonl")) == 0
    with (tmp_path / "skills.jsonl").open("a") as file:
        file.write('{"scenario": "s"}\n')
    with pytest.raises(ApprenticeError, match="skills.jsonl:7: holds no skill"):
        SkillLibrary.read(tmp_path / "skills.jsonl")
