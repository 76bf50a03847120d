"""The REST API: Falcon resources under gunicorn.

- ``create_app`` makes the WSGI application of one worker process; ``run_api`` serves it with several.
- ``add_account`` and ``ensure_admin`` make accounts.
"""

from ebhpc.api.accounts import AccountError, add_account, ensure_admin
from ebhpc.api.server import run_api

__all__ = ["AccountError", "add_account", "create_app", "ensure_admin", "run_api"]


def __getattr__(name: str) -> object:
    """Import the application late: its measures must know where the processes share them (see ``server``)."""
    if name == "create_app":
        from ebhpc.api.app import create_app

        return create_app
    raise AttributeError(name)
