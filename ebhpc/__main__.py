"""``python -m ebhpc`` is the ``ebhpc`` command."""

from ebhpc.cli import main

if __name__ == "__main__":
    main()
