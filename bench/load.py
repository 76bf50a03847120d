"""A load of HTTP requests over kept connections, and what they took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from msgspec import Struct


class Load(Struct, frozen=True, kw_only=True):
    """What a load took: ``latencies`` in seconds, sorted; ``seconds`` from the first request to the last answer."""

    latencies: list[float]
    seconds: float
    statuses: dict[int, int]
    sample: bytes

    @property
    def throughput(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency (seconds) that ``share`` of the requests did not exceed."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def load(
    host: str,
    port: int,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    connections: int,
    requests: int,
) -> Load:
    """POST ``body`` so many times over so many connections at once."""
    return asyncio.run(_load(host, port, path, body, headers, connections, requests))


async def _load(
    host: str, port: int, path: str, body: bytes, headers: Mapping[str, str], connections: int, requests: int
) -> Load:
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}:{port}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    left = iter(range(requests))
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    sample = b""

    async def connection() -> None:
        nonlocal sample
        reader, writer = await asyncio.open_connection(host, port)
        for _ in left:
            begun = time.perf_counter()
            writer.write(request)
            status, keep, answer = await _answer(reader)
            latencies.append(time.perf_counter() - begun)
            statuses[status] = statuses.get(status, 0) + 1
            sample = answer
            if not keep:
                writer.close()
                reader, writer = await asyncio.open_connection(host, port)
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    seconds = time.perf_counter() - begun
    return Load(latencies=sorted(latencies), seconds=seconds, statuses=statuses, sample=sample)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    names = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields if field)}
    body = await reader.readexactly(int(names["content-length"]))
    return int(first.split()[1]), names.get("connection", "").lower() != "close", body
