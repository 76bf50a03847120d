from __future__ import annotations

import threading
from uuid import UUID

from ebhpc.api.uuids import RandomUuids


def test_uuids_are_random_ones_and_differ_between_threads_too():
    new_uuid = RandomUuids()
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
        assert uuid.version == 4
        assert uuid.variant == "specified in RFC 4122"
