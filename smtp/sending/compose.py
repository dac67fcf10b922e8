"""From a message of the outbound topic to an envelope: rendered, built, signed, with its own return path."""

from collections.abc import Callable, Sequence
from typing import assert_never

from policy.templates import BadContent, BadVariables, Rendered, Template
from policy.tokens import Keys, message_id_header, return_path
from schemas.sending import Campaign, OutboundMessage
from smtp.attempts import Envelope, UnsafeEnvelope
from smtp.dkim import Key, Signer
from smtp.messages import Letterhead, Message, Unsendable

FindKeys = Callable[[str], Sequence[Key]]


class Composer:
    """Composes the messages of one campaign; ``find_keys`` answers the DKIM keys of a From domain."""

    def __init__(self, keys: Keys, *, find_keys: FindKeys = lambda _: ()) -> None:
        self._keys = keys
        self._find_keys = find_keys
        self._campaign: Campaign | None = None
        self._letterhead: Letterhead | None = None
        self._signer = Signer(())

    def envelope(
        self, message: OutboundMessage, *, campaign: Campaign, template: Template | BadContent | None, now: int
    ) -> Envelope | Unsendable:
        """The envelope of one message, or why it cannot be sent; ``now`` is when it is sent, in ms."""
        rendered = _rendered(template, message)
        if isinstance(rendered, Unsendable):
            return rendered
        letterhead = self._with(campaign)
        try:
            sender = return_path(
                self._keys,
                campaign=campaign.campaign,
                message_id=message.message_id,
                address_hash=message.address_hash,
                sent_at=now,
                domain=campaign.return_path_domain,
            )
            message_id = message_id_header(
                campaign=campaign.campaign, message_id=message.message_id, domain=letterhead.from_domain
            )
        except ValueError as no_host:
            return Unsendable("bad_campaign", str(no_host))
        built = letterhead.message(rendered, to=message.address, message_id=message_id, now=now)
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
            self._letterhead = Letterhead(campaign)
            self._signer = Signer(self._find_keys(self._letterhead.from_domain))
            self._campaign = campaign
        return self._letterhead


def _rendered(template: Template | BadContent | None, message: OutboundMessage) -> Rendered | Unsendable:
    """Admission has asked the same questions; the content may have changed since."""
    match template:
        case None:
            return Unsendable("unknown_content", "its content was withdrawn after the message had been admitted")
        case BadContent():
            return Unsendable("bad_content", template.explain)
        case Template():
            rendered = template.render(message.vars)
            return Unsendable(rendered.reason, rendered.explain) if isinstance(rendered, BadVariables) else rendered
        case _:
            assert_never(template)
