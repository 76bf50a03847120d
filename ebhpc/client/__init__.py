"""The Python client: a broker of the IVOA Execution Broker standard, ebhpc's or another's, by its URL.

- ``Broker`` asks, accepts, follows and fetches; ``Change`` is what its ``wait`` yields.
- ``BrokerError`` and its kinds say what went wrong, with the broker's own messages.
- ``as_json`` writes a document as the broker would.
"""

from ebhpc.client.broker import Broker, Change
from ebhpc.client.errors import (
    BadAnswer,
    BrokerError,
    Conflict,
    NoAnswer,
    NotAuthorised,
    NotFound,
    Refused,
    Unreachable,
    Unsupported,
)
from ebhpc.client.reading import as_json

__all__ = [
    "BadAnswer",
    "Broker",
    "BrokerError",
    "Change",
    "Conflict",
    "NoAnswer",
    "NotAuthorised",
    "NotFound",
    "Refused",
    "Unreachable",
    "Unsupported",
    "as_json",
]
