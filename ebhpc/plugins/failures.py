"""What a call of a platform's hook may raise."""

from __future__ import annotations

from ebhpc.model import Message, MessageKind, message


class SessionFailed(Exception):  # the word of the contract
    """Raised by a hook: the session can never succeed. ``messages`` tell its owner why.

    A plain string becomes a message of kind ``urn:execution-failed``.
    """

    def __init__(self, *messages: Message | str) -> None:
        self.messages: tuple[Message, ...] = tuple(
            item if isinstance(item, Message) else message(MessageKind.FAILED, "{reason}", reason=item)
            for item in messages
        )
        super().__init__("; ".join(map(str, self.messages)))


class PlatformUnavailable(Exception):  # the word of the contract
    """A platform did not answer, or answered nonsense; the call may have been carried out.

    ``retry_after``: seconds until the platform is asked again at all, None when it may be asked at once.
    """

    def __init__(self, platform: str, hook: str, reason: str, retry_after: float | None = None) -> None:
        self.platform = platform
        self.hook = hook
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(f"platform {platform}, {hook}: {reason}")
