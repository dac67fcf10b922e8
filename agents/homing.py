"""Sending a record on to the partition in which the table keeps its key."""

from collections.abc import Sequence

from agents.ports import Message, Publish
from agents.setting_aside import Aside
from schemas.base import Record
from schemas.codec import encode
from streams.home import FORWARDED, home, was_forwarded


class Homing:
    """Knows whether a record arrived where it belongs, and sends it on if not."""

    def __init__(self, outlet: Publish, aside: Aside, partitions: int) -> None:
        self._outlet = outlet
        self._aside = aside
        self._partitions = partitions

    async def away(self, message: Message, key: str, part: Record | None = None) -> bool:
        """Whether the record (or the ``part`` of it that is about ``key``) went to another partition.

        Sent on once: if it then still is not at home, partition counts differ, and it is set aside.
        """
        if home(key, self._partitions) == message.partition:
            return False
        if was_forwarded(message.headers):
            explain = f"key {key[:128]!r} does not belong to partition {message.partition} of {self._partitions}"
            await self._aside.put(message, "wrong_partition", explain)
            return True
        headers: Sequence[tuple[str, bytes]] = [*(message.headers or ()), (FORWARDED, b"1")]
        value = message.value if part is None else encode(part)
        await self._outlet.forward(message.topic, value, key=key, headers=headers)
        return True
