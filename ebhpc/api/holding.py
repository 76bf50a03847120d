"""Offers that the batch system itself has reserved before they are shown (``reserve_at: offer``).

An offer is booked first, and then held by its platform's own reservation. Where the batch system refuses one, the
window stays booked while other windows are looked for, so that these differ from it; at the end the refused ones are
rejected. What was asked for and not answered may exist all the same: a driver releases it with the offer.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.api.broker import Broker
from ebhpc.api.consulting import Asking, unavailable
from ebhpc.api.offering import Offered, make_offers, refused
from ebhpc.model import Message, MessageKind, message
from ebhpc.plugins import PlatformUnavailable, SessionFailed
from ebhpc.store import NewOffer, as_session, note_held, read_sessions, withdraw

MOST_TRIES = 4
"""How often other windows are looked for, where a batch system refuses those that were planned."""


class _Holding(Struct, frozen=True, kw_only=True):
    """What became of an offer set: the offers that stand, those that do not, and why."""

    standing: tuple[NewOffer, ...]
    fallen: tuple[NewOffer, ...]
    messages: tuple[Message, ...]


def offers_that_stand(broker: Broker, asking: Asking) -> Offered:
    """Make offers for a request, as ``make_offers`` does, and have those reserved that their platforms reserve now."""
    if not any(platform.config.reserve_at == "offer" for platform in broker.platforms.values()):
        return make_offers(broker, asking)
    fallen: list[NewOffer] = []
    told: tuple[Message, ...] = ()
    try:
        for _ in range(MOST_TRIES):
            offered = make_offers(broker, replace(asking, now=broker.clock()))
            result = _held(broker, offered.offers)
            fallen += result.fallen
            told = (*told, *(one for one in result.messages if one not in told))
            if not offered.offers:
                return (
                    refused(broker, asking.identity.uuid, (*offered.messages, *told), broker.clock())
                    if told
                    else offered
                )
            if not result.fallen:
                return offered
            if result.standing:
                return _narrowed(offered, result.standing)
        return refused(broker, asking.identity.uuid, (*offered.messages, *told), broker.clock())
    finally:
        withdraw(
            broker.store, [offer.uuid for offer in fallen], now=broker.clock(), cause="its platform did not reserve it"
        )


def _narrowed(offered: Offered, standing: Sequence[NewOffer]) -> Offered:
    kept = {offer.uuid for offer in standing}
    pairs = zip(offered.offers, offered.drafts, strict=True)
    drafts = tuple(draft for offer, draft in pairs if offer.uuid in kept)
    return replace(offered, offers=tuple(standing), drafts=drafts)


def _held(broker: Broker, offers: Sequence[NewOffer]) -> _Holding:
    """Have offers reserved by their platforms, one after another: what one takes, the next must not."""
    wanted = [offer for offer in offers if offer.holding]
    standing = [offer for offer in offers if not offer.holding]
    fallen: list[NewOffer] = []
    told: list[Message] = []
    records = {record.uuid: record for record in read_sessions(broker.store, [offer.uuid for offer in wanted])}
    for offer in wanted:
        platform = broker.platforms[offer.platform]
        try:
            name = platform.call("ebhpc_hold", session=as_session(records[offer.uuid], broker.kinds))
        except SessionFailed as error:
            fallen.append(offer)
            told += [_of(offer.platform, one) for one in error.messages]
        except PlatformUnavailable as error:
            fallen.append(offer)
            told.append(unavailable(broker, error))
        else:
            note_held(broker.store, offer.uuid, name)
            standing.append(offer)
    order = {offer.uuid: place for place, offer in enumerate(offers)}
    return _Holding(
        standing=tuple(sorted(standing, key=lambda offer: order[offer.uuid])),
        fallen=tuple(fallen),
        messages=tuple(told),
    )


def _of(platform: str, why: Message) -> Message:
    return message(
        MessageKind.NO_WINDOW,
        "{platform} did not reserve what was planned: {why}",
        platform=platform,
        why=str(why),
    )
