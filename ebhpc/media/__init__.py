"""Bodies: JSON and YAML to plain data and back, and which of them a client wants.

``decode`` and ``encode`` are for whole bodies, ``negotiate`` reads an Accept header; ``problem_type`` names
the media type of a problem document.
"""

from ebhpc.media.bodies import decode, encode
from ebhpc.media.errors import Malformed, MediaError, NotAcceptable, TooLarge, UnsupportedMedia
from ebhpc.media.limits import MediaLimits
from ebhpc.media.negotiation import JSON, YAML, negotiate, problem_type

__all__ = [
    "JSON",
    "YAML",
    "Malformed",
    "MediaError",
    "MediaLimits",
    "NotAcceptable",
    "TooLarge",
    "UnsupportedMedia",
    "decode",
    "encode",
    "negotiate",
    "problem_type",
]
