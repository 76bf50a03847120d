"""The page for people: ask, see, book, watch.

``with_page`` puts it beside an API's application, at ``/ui/``. It is a second WSGI application in the same process,
which calls the functions that the API's resources call, as the user who is signed in, and keeps nothing between two
requests: who is signed in stands in the database.
"""

from ebhpc.ui.application import page_application, with_page

__all__ = ["page_application", "with_page"]
