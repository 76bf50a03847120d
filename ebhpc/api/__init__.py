"""The REST API: Falcon resources under gunicorn.

- ``create_app`` makes the WSGI application of one worker process; ``run_api`` serves it with several.
- ``add_account`` and ``ensure_admin`` make accounts; they raise ``AccountError``.
"""

from ebhpc.api.accounts import AccountError, add_account, ensure_admin
from ebhpc.api.app import create_app
from ebhpc.api.server import run_api

__all__ = ["AccountError", "add_account", "create_app", "ensure_admin", "run_api"]
