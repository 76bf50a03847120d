"""Firm time: what a site lets its users promise themselves, and what such a promise costs the others.

:func:`firm_windows` finds windows that keep to a site's rules, the cheapest first, each with its :class:`Harm`;
:func:`broken_rules` looks at one window again, as before it is booked; :func:`merged` makes a user's rules of a
platform's settings.
"""

from ebhpc.planning.firm.harm import Harm, Holes, QueuePlan
from ebhpc.planning.firm.promised import node_hours, nodes_of, with_bookings_read
from ebhpc.planning.firm.rules import Site, Span, group_of, merged
from ebhpc.planning.firm.windows import Asked, Found, Priced, Pricing, broken_rules, firm_windows

__all__ = [
    "Asked",
    "Found",
    "Harm",
    "Holes",
    "Priced",
    "Pricing",
    "QueuePlan",
    "Site",
    "Span",
    "broken_rules",
    "firm_windows",
    "group_of",
    "merged",
    "node_hours",
    "nodes_of",
    "with_bookings_read",
]
