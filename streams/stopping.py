"""Ending a plain aiokafka consumer without being ended by it."""

import asyncio

from aiokafka import AIOKafkaConsumer

WITHIN_S = 5.0


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, within a limit.

    In a task of its own: aiokafka awaits what it cancels, and lets that ``CancelledError`` out as if it were the
    caller's (a consumer that is stopped right after its start, or while its broker is away).  When it does, its
    client is still open.
    """
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.wait({stopping}, timeout=WITHIN_S)
    if not stopping.done() or stopping.cancelled():
        closing = asyncio.create_task(consumer._client.close())  # noqa: SLF001 - there is no other way
        await asyncio.wait({closing}, timeout=WITHIN_S)
