"""From a request's document to a Request: defaults filled in, every rule of the protocol checked.

``read_request`` reads, ``reissue`` copies a Request under new UUIDs (one copy an offer),
``constraints_allow`` compares a quote with what the client accepts.
"""

from ebhpc.model.reading.constraints import constraints_allow
from ebhpc.model.reading.findings import RequestLimits
from ebhpc.model.reading.request import Reading, read_request, reissue

__all__ = ["Reading", "RequestLimits", "constraints_allow", "read_request", "reissue"]
