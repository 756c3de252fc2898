"""AppWorld's engine behind sockets. It runs inside .venv-appworld and imports appworld and the standard library only.

client ── zygote ─┬─ template of a task ── world, one per episode: databases and APIs; never runs the agent's code
                  ├─ judge, one per judgement: evaluates flushed databases
                  └─ sandbox ── interpreter, one per episode: runs the agent's code; one socket, to its world
"""
