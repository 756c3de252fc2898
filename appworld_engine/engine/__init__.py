"""AppWorld's engine behind sockets. Runs inside .venv-appworld; imports appworld and the standard library only.

client ── zygote ─┬─ template of a task ── world, one an episode: databases and APIs; never runs the agent's code
                  ├─ judge, one a judgement: evaluates flushed databases
                  └─ jail ── interpreter, one an episode: runs the agent's code; has one socket, to its world
"""
