"""The header fields of bulk mail that are the same for a whole campaign, unless its content brings its own.

Feedback-ID     Google's feedback loop: campaign, tenant, kind of mail, and who sends, from the right
List-Id         RFC 2919: the list that one leaves when one unsubscribes, which is the tenant's
Precedence      and X-Auto-Response-Suppress: robots need not answer
CFBL-Address    RFC 9477: where complaints go, by mail, without that anybody has registered anything
"""

import re

from policy.addresses import hostname
from policy.naming import campaign_name
from schemas.sending import Campaign

SENDER_ID = "mailcordon"  # 5 to 15 characters; Google keeps apart by the domain that signs
COMPLAINTS = "fbl"
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?").fullmatch


def standard_fields(campaign: Campaign, *, from_domain: str) -> tuple[tuple[str, bytes], ...]:
    """Names in lower case, and the fields with their line ends."""
    name, tenant = campaign_name(campaign.campaign), _tenant(campaign)
    return (
        ("list-id", f"List-Id: <{tenant}.{from_domain}>\r\n".encode("ascii", "replace")),
        ("feedback-id", f"Feedback-ID: {name}:{tenant}:bulk:{SENDER_ID}\r\n".encode("ascii")),
        ("precedence", b"Precedence: bulk\r\n"),
        ("x-auto-response-suppress", b"X-Auto-Response-Suppress: OOF, AutoReply\r\n"),
    )


def complaints_field(campaign: Campaign, *, from_domain: str, signed_by: str | None) -> bytes | None:
    """CFBL-Address, where a provider would believe it (RFC 9477 3.1): the domain in From signs, and the domain of the
    return path is the same or below it.  None elsewhere: an address of a third party needs a signature of its own.
    """
    domain = hostname(campaign.return_path_domain)
    if domain is None or signed_by != from_domain or not _is_below(domain, from_domain):
        return None
    return f"CFBL-Address: {COMPLAINTS}@{domain}; report=arf\r\n".encode("ascii")


def _tenant(campaign: Campaign) -> str:
    """The tenant as one word that is none of the others in Feedback-ID, where each may stand only once."""
    taken = {campaign_name(campaign.campaign), "bulk", SENDER_ID}
    tenant = campaign.tenant
    return tenant if _WORD(tenant) and tenant not in taken else campaign_name(f"tenant {tenant}")


def _is_below(domain: str, above: str) -> bool:
    return domain == above or domain.endswith(f".{above}")
