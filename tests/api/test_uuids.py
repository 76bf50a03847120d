from __future__ import annotations

import threading
from uuid import UUID

from ebhpc.api.uuids import TimeOrderedUuids


def test_uuids_differ_between_threads_too():
    new_uuid = TimeOrderedUuids()
    found: list[str] = []

    def many() -> None:
        found.extend([new_uuid() for _ in range(1000)])

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    many()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 5000
    for text in found:
        uuid = UUID(text)
        assert str(uuid) == text
        assert uuid.version == 7
        assert uuid.variant == "specified in RFC 4122"


def test_uuids_begin_with_their_time_and_the_rest_is_random():
    instants = iter([1_800_000_000.0, 1_800_000_000.0, 1_800_000_000.001, 1_800_000_060.0])
    new_uuid = TimeOrderedUuids(lambda: next(instants))
    first, second, third, last = (UUID(new_uuid()) for _ in range(4))
    assert [one.int >> 80 for one in (first, second, third, last)] == [
        1_800_000_000_000,
        1_800_000_000_000,
        1_800_000_000_001,
        1_800_000_060_000,
    ]
    assert max(first, second) < third < last
    # Two of 74 random bits each that share 30 or more of their leading ones would be no chance
    assert (first.int ^ second.int) & ((1 << 62) - 1) > 1 << 32
