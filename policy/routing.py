"""Routing: in which partition of its campaign's topic a message goes out.

A message id always falls into the same partition, so that whoever owns the partition knows whether it was sent
before.  Changing the number of partitions of a campaign's topic would break that; it is fixed when it is made.
"""

from zlib import crc32

from policy.admission import Admission
from schemas.sending import OutboundFrame, OutboundMessage, SendRequest


def partition_of(message_id: str, partitions: int) -> int:
    """CRC-32 of the id in UTF-8, modulo the number of partitions."""
    return crc32(message_id.encode("utf-8", "surrogatepass")) % partitions


def frames(admission: Admission, request: SendRequest, *, partitions: int, now: int) -> dict[int, OutboundFrame]:
    """The admitted messages of one request by partition, in the order in which they were asked for."""
    shares: dict[int, list[OutboundMessage]] = {}
    for message in admission.messages:
        partition = partition_of(message.message_id, partitions)
        share = shares.get(partition)
        if share is None:
            shares[partition] = [message]
        else:
            share.append(message)
    return {
        partition: OutboundFrame(
            campaign=request.campaign,
            request_id=request.request_id,
            content=request.content,
            admitted_at=now,
            messages=share,
            not_before=request.not_before,
            expires_at=request.expires_at,
        )
        for partition, share in sorted(shares.items())
    }
