"""The ports of `graylift.ports` on this machine: the store in a SQL database, model servers as processes.

Each module is one adapter and maps the errors of its foreign library to `graylift.errors` once. Adapters know the
domain and the ports, nothing of each other's callers; `cli/wiring.py` chooses them.
"""
