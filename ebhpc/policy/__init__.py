"""The site's own rules: who may use what, how much of it, and what may run.

- ``SiteRules`` answers for the API; ``LimitReached`` is what it raises when an offer cannot be accepted.
- ``matches`` says whether somebody is among those whom a rule is about (``ebhpc.config.Who``).
- ``People`` adds the site's own groups to identities.
"""

from ebhpc.policy.people import People, in_group, matches
from ebhpc.policy.site import NO_RULES, LimitReached, SiteRules

__all__ = ["NO_RULES", "LimitReached", "People", "SiteRules", "in_group", "matches"]
