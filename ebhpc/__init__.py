"""ebhpc: an IVOA Execution Broker for HPC centres."""

from ebhpc.hookspecs import hookimpl

__all__ = ["__version__", "hookimpl"]

__version__ = "0.1.0"
