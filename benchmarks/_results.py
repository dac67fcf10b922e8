"""Results as a sender writes them, for what is done with many of them."""

from schemas.delivery import DeliveryResult


def accepted(message_id: str, *, at: int) -> DeliveryResult:
    """A message that a provider took, with all that is told of it."""
    return DeliveryResult(
        message_id=message_id,
        outcome="accepted",
        at=at,
        ip="192.0.2.7",
        mx="mx1.example.com",
        code=250,
        enhanced="2.0.0",
        text="2.0.0 Ok: queued",
        tls="TLSv1.3",
        took_ms=41,
        address_hash="ab" * 32,
    )
