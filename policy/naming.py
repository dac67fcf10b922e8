"""Names for topics and Kubernetes objects, made from campaign ids that may hold anything.

A name is a readable slug plus a hash of the whole id, so that different campaigns never share one, and it is
legal in Kafka (``[a-zA-Z0-9._-]``, at most 249) and as a DNS-1123 label (at most 63, RFC 1123 2.1).
"""

import hashlib
import re
from functools import lru_cache

from schemas.topics import LEDGER, OUTBOUND

_UNSAFE = re.compile(r"[^a-z0-9]+")
_SLUG_LENGTH = 40
_HASH_LENGTH = 12


@lru_cache(maxsize=1024)
def campaign_name(campaign: str) -> str:
    """The campaign's name: ``Spring Sale!`` becomes ``spring-sale-`` and twelve hex digits."""
    digest = hashlib.sha256(campaign.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    slug = _UNSAFE.sub("-", campaign.lower())[:_SLUG_LENGTH].strip("-")
    return f"{slug}-{digest}" if slug else f"c-{digest}"


def outbound_topic(campaign: str) -> str:
    """The topic of the campaign's admitted messages."""
    return OUTBOUND + campaign_name(campaign)


def ledger_topic(campaign: str) -> str:
    """The topic of the campaign's ledger."""
    return LEDGER + campaign_name(campaign)


def sender_name(campaign: str) -> str:
    """The Deployment (or local process) of the campaign's sender."""
    return f"sender-{campaign_name(campaign)}"


def sender_group(campaign: str) -> str:
    """The Kafka consumer group of the campaign's sender."""
    return f"mailcordon.sender.{campaign_name(campaign)}"


def campaign_scope(campaign: str) -> str:
    """The scope under which a campaign is judged."""
    return f"campaign:{campaign}"


def held_key(campaign: str, message_id: str) -> str:
    """The key of a held message, ``campaign id/message id``: a ``/`` of the campaign's is written ``%2F``."""
    return f"{campaign.replace('%', '%25').replace('/', '%2F')}/{message_id}"
