"""What the unsubscribe server says to people: small pages that load nothing, remember nothing and lead nowhere."""

import base64
import hashlib
import html
from http import HTTPStatus

_STYLE = "body{font:17px/1.5 system-ui,sans-serif;max-width:32rem;margin:12vh auto;padding:0 1rem}button{font:inherit}"
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode("ascii")).digest()).decode("ascii")

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
    "X-Content-Type-Options": "nosniff",
    "Server": "mailcordon",
}
BUTTON = "Page"  # what the button posts in List-Unsubscribe, to tell people from mailbox providers

ROBOTS = "User-agent: *\nDisallow: /\n"

_SAID = {
    HTTPStatus.BAD_REQUEST: "This request does not unsubscribe anybody. Open the link, and press the button.",
    HTTPStatus.NOT_FOUND: "This link is not valid. Please use the whole link as it stands in the mail.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This link is for looking at, and for unsubscribing; nothing else is done here.",
    HTTPStatus.REQUEST_TIMEOUT: "The request took too long. Please try again.",
    HTTPStatus.GONE: "This link is no longer valid: its sender is not known here any more.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is too large.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests. Please try again in a minute.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Not unsubscribed yet: it could not be stored. Please try again in a minute.",
}


def ask(sender: str) -> str:
    """The page that a link shows: nothing has happened yet, since programs that look at links see it, too."""
    return _page(
        "Unsubscribe",
        f"<p>Do you want no more mail from {html.escape(sender)}?</p>"
        f'<form method="post"><input type="hidden" name="List-Unsubscribe" value="{BUTTON}">'
        "<button>Unsubscribe</button></form>",
    )


def done(sender: str) -> str:
    """The page after it."""
    return _page(
        "Unsubscribed",
        f"<p>You get no more mail from {html.escape(sender)}. A message that is under way may still arrive.</p>",
    )


def trouble(status: HTTPStatus) -> str:
    """The page that says why nothing happened."""
    return _page("Not unsubscribed", f"<p>{_SAID[status]}</p>")


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>{body}</html>"
    )
