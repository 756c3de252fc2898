"""Blocks run on the engine produce the same observations as in AppWorld itself."""

import asyncio
import json
import os
import subprocess

import pytest
from usecases.assistant.test_client import LOGIN

from apprentice.usecases.assistant.environment.client import AppWorldClient
from apprentice.usecases.assistant.environment.episode import EpisodeLimits

pytestmark = pytest.mark.timeout(900)
"""Seconds: the first test that needs a data root generates it."""

BLOCKS = [
    "x = 5",
    "print(x)\nx += 1",
    "print(x, 'and', [1, 2])",
    "print({'a': [1, 2, 3], 'b': 'c' * 200})",
    "print([])\nprint(None)\nprint('', end='')",
    "x",
    "",
    "   ",
    "# only a comment",
    "1 / 0",
    "def f(n):\n    return g(n)\ndef g(n):\n    raise ValueError(f'bad {n}')\nprint('before')\nf(3)",
    "try:\n    f(4)\nexcept ValueError as error:\n    raise KeyError('other') from error",
    "print(undefined_name)",
    "print('unclosed",
    "for i in range(3):\nprint(i)",
    "return 5",
    "await something()",
    "import os\nprint(os.listdir('/'))",
    "import subprocess, socket",
    "open('/etc/passwd').read()",
    "exit()",
    "import sys\nsys.exit(1)",
    "raise SystemExit(3)",
    "input('your name?')",
    "%time 1",
    "!ls",
    "print(DateTime.now(), datetime.datetime.now(), datetime.date.today())",
    "import time\nprint(time.time())\ntime.sleep(1)",
    "import time\nprint(time.strftime('%Y-%m-%d'))",
    "print(DateTime.now().add(days=3).strftime('%A %d %B %Y'), pendulum.now())",
    "print(pendulum.parse('2023-02-03T10:00:00').diff_for_humans())",
    "print(datetime.datetime.strptime('3 May 2023', '%d %B %Y'))",
    "print(random.random(), random.randint(1, 1000))",
    "from collections import OrderedDict\nimport yaml, uuid, difflib, heapq\nprint(OrderedDict(a=1), yaml.safe_load('a: [1, 2]'))",
    "import statistics",
    "print(sorted(apis.supervisor.show_profile().items()))",
    "print(apis.api_docs.show_app_descriptions())",
    "print(apis.api_docs.show_api_doc(app_name='spotify', api_name='login'))",
    "print(apis.api_docs.show_api_doc(app_name='spotify', api_name='no_such'))",
    "print(apis.api_docs.show_api_descriptions(app_name='nope'))",
    "print(apis.no_app.no_api())",
    "print(apis.spotify.no_api())",
    "print(apis.spotify)",
    "print(apis.supervisor.show_profile('positional'))",
    "print(apis.supervisor.show_profile(extra=1))",
    "print(apis.spotify.login(username='x'))",
    "print(apis.spotify.login(username='x', password='wrong'))",
    "print(apis.spotify.show_song_library())",
    "print(apis.spotify.show_song_library(access_token='nonsense'))",
    "print(apis.simple_note.show_note(note_id='abc', access_token='t'))",
    "print(apis.simple_note.show_note(note_id='', access_token='t'))",
    "print(apis.simple_note.show_note(note_id='1/2?x=3', access_token='t'))",
    "print(apis.simple_note.create_note(title={1, 2}, content='x', access_token='t'))",
    "print(apis.simple_note.create_note(title=DateTime.now(), content='x', access_token='t'))",
    LOGIN + "t = login('simple_note')\nprint(len(t) > 20)",
    "print(apis.simple_note.create_note(title='é ü 漢字 🙂', content='tab\\tquote\"', access_token=t))",
    "print(apis.simple_note.search_notes(query='漢字', access_token=t, page_limit=1))",
    "print(apis.simple_note.search_notes(query='', page_index=-1, access_token=t))",
    "print(apis.simple_note.search_notes(query='', page_limit=10**6, access_token=t))",
    "print(apis.simple_note.search_notes(query='x', sort_by='nonsense', access_token=t))",
    "print(apis.simple_note.search_notes(query=['a', 'b'], access_token=t))",
    "print(apis.simple_note.delete_note(note_id=999999, access_token=t))",
    "print(requester.request('simple_note', 'show_note', note_id=10**12, access_token=t))",
    "print(apis.simple_note.show_note(note_id=1, access_token=t, raise_on_failure=False))",
    "for i in range(1001):\n    apis.supervisor.show_profile()",
    "print('still here', x)",
    "print(apis.supervisor.complete_task(answer='wrong'))",
    "print(apis.supervisor.complete_task(status='fail'))",
]

STOCK = """
import json, sys
from appworld import AppWorld
task, blocks, timeout = json.load(sys.stdin)
world = AppWorld(task_id=task, experiment_name="stock", timeout_seconds=timeout, load_ground_truth=False)
print(json.dumps([world.execute(block) for block in blocks]), file=sys.__stderr__)
"""


@pytest.mark.slow
def test_observations_are_those_of_appworld_itself(appworld_python, appworld_root, loop, task_ids, tmp_path):
    """The reference runs the same blocks through AppWorld's own `execute` in a separate process."""
    limits = EpisodeLimits(timeout_s=60, output_chars=1_000_000)
    (tmp_path / "data").symlink_to(appworld_root / "data")
    stock = subprocess.run(
        [appworld_python, "-W", "ignore", "-c", STOCK],
        input=json.dumps([task_ids[0], BLOCKS, limits.timeout_s]),
        env={**os.environ, "APPWORLD_ROOT": str(tmp_path), "IPYTHONDIR": str(tmp_path), "TZ": "UTC"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
    )
    expected = json.loads(stock.stderr.splitlines()[-1])

    async def ours() -> list[str]:
        client = AppWorldClient(appworld_python, appworld_root, tmp_path / "scratch", limits=limits)
        await client.start()
        try:
            world = await client.open(task_ids[0], "same")
            return [(await world.execute(block)).output for block in BLOCKS]
        finally:
            await client.close()

    outputs = loop.run_until_complete(asyncio.wait_for(ours(), 240))
    differing = [(block, theirs, our) for block, theirs, our in zip(BLOCKS, expected, outputs, strict=True) if theirs != our]
    assert differing == [], differing
