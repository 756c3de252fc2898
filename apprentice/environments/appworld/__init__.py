"""AppWorld: a personal assistant that writes code against the APIs of everyday apps.

`engine` and `generator` run inside .venv-appworld and are never imported here; everything else in this package is their client side.
"""
