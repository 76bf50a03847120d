"""Fixtures that all tests share."""

import signal

pytest_plugins = ["tests.databases", "tests.lab.container_fixtures"]

# What a shell runs in its background ignores SIGINT, and so would every process that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
