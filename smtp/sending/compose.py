"""From a message of the outbound topic to an envelope: rendered, built, signed, with its own return path."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import assert_never

from policy.templates import BadContent, BadVariables, Rendered, Template
from policy.tokens import Keys, message_id_header, return_path, unsubscribe_token
from policy.traps import domain_hash
from policy.unsubscribing import link
from schemas.sending import Campaign, OutboundMessage
from smtp.attempts import Envelope, UnsafeEnvelope
from smtp.dkim import Key, Signer
from smtp.messages import Letterhead, Message, Unsendable, from_domain

_DOMAINS_REMEMBERED = 16_384

FindKeys = Callable[[str], Sequence[Key]]


class Composer:
    """Composes the messages of one campaign; ``find_keys`` answers the DKIM keys of a From domain."""

    def __init__(self, keys: Keys, *, find_keys: FindKeys = lambda _: ()) -> None:
        self._keys = keys
        self._find_keys = find_keys
        self._campaign: Campaign | None = None
        self._letterhead: Letterhead | None = None
        self._signer = Signer(())
        self.domain_hash = lru_cache(_DOMAINS_REMEMBERED)(partial(domain_hash, keys))
        """What stands for every address of a domain in suppressions."""

    def envelope(
        self,
        message: OutboundMessage,
        *,
        campaign: Campaign,
        template: Template | BadContent | None,
        now: int,
        first_at: int | None = None,
    ) -> Envelope | Unsendable:
        """The envelope of one message, or why it cannot be sent; ``now`` is when it is sent, in ms.

        ``first_at`` is when it was tried first, if that was before: it stays the time in the return path.
        """
        letterhead = self._with(campaign)
        token = self._token(message, campaign, now) if letterhead.makes_links else None
        if isinstance(token, Unsendable):
            return token
        url = link(campaign.unsubscribe_url, token) if token and campaign.unsubscribe_url else None
        rendered = _rendered(template, message, url)
        if isinstance(rendered, Unsendable):
            return rendered
        try:
            sender = return_path(
                self._keys,
                campaign=campaign.campaign,
                message_id=message.message_id,
                address_hash=message.address_hash,
                sent_at=now if first_at is None else first_at,
                domain=campaign.return_path_domain,
            )
            message_id = message_id_header(
                self._keys, campaign=campaign.campaign, message_id=message.message_id, domain=letterhead.from_domain
            )
        except ValueError as no_host:
            return Unsendable("bad_campaign", str(no_host))
        built = letterhead.message(
            rendered, to=message.address, message_id=message_id, now=now, unsubscribe_token=token, return_path=sender
        )
        if not isinstance(built, Message):
            return built
        data = built.data(*self._signer.signatures(built, now=now))
        try:
            return Envelope.checked(
                sender=sender, recipient=message.address, data=data, must_encrypt=campaign.tls == "require"
            )
        except UnsafeEnvelope as unsafe:
            return Unsendable("bad_address", str(unsafe))

    def _with(self, campaign: Campaign) -> Letterhead:
        if self._letterhead is None or campaign is not self._campaign:
            keys = self._find_keys(from_domain(campaign))
            self._letterhead = Letterhead(campaign, signed_by=keys[0].domain if keys else None)
            self._signer = Signer(keys)
            self._campaign = campaign
        return self._letterhead

    def _token(self, message: OutboundMessage, campaign: Campaign, now: int) -> str | Unsendable:
        try:
            return unsubscribe_token(
                self._keys,
                campaign=campaign.campaign,
                message_id=message.message_id,
                address_hash=message.address_hash,
                sent_at=now,
            )
        except ValueError:
            explain = "its address_hash is not 64 hex digits, so that nobody could unsubscribe"
            return Unsendable("bad_address", explain)


def _rendered(
    template: Template | BadContent | None, message: OutboundMessage, url: str | None
) -> Rendered | Unsendable:
    """Admission has asked the same questions; the content may have changed since."""
    match template:
        case None:
            return Unsendable("unknown_content", "its content was withdrawn after the message had been admitted")
        case BadContent():
            return Unsendable("bad_content", template.explain)
        case Template() if template.needs_link and url is None:
            return Unsendable(
                "no_unsubscribe_url", "its content holds {{unsubscribe_url}}, its campaign makes no links"
            )
        case Template():
            rendered = template.render(message.vars, unsubscribe_url=url or "")
            return Unsendable(rendered.reason, rendered.explain) if isinstance(rendered, BadVariables) else rendered
        case _:
            assert_never(template)
