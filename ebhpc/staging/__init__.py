"""What platforms share that run sessions in directories: how a session's files get there, where they lie, what is kept.

- ``locations``, ``references``: URLs and image names that users give.
- ``fetching``: one file from a URL to a directory, whole and checked.
- ``volumes``: which element lies where, and where the job sees it.
- ``refusals``: why a request cannot run, by a declaration of what a platform is able to.
- ``scripts``: what batch scripts may do, and how one is started.
- ``rules``: the settings that they all have for it.
- ``outputs``: listing and opening results without leaving their directory.
- ``files``: locks, marks and whole writes.
- ``notebook_runner``: a program of its own, for whatever Python executes notebooks.

Nothing is imported here: a supervisor imports ``files`` alone.
"""
