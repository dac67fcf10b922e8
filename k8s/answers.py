"""What a refusal of the Kubernetes API means to whoever asked.  Pure."""

import contextlib

import msgspec

from k8s.cluster import Permanent, Temporary
from k8s.objects import ApiStatus

MAX_SAID = 300


class Conflict(Temporary):
    """Somebody wrote between our reading and our writing, or made what we wanted to make."""


class Expired(Temporary):
    """A version that the API server does not remember any more: list anew."""


class Forbidden(Permanent):
    """Our identity has no right to this."""


class NotServed(Permanent):
    """There is no such namespace, or the API server does not know this kind."""


class Undeclared(Permanent):
    """The API server's schema lacks a field of ours: its definitions are of an older version than we are."""


class Outdated(Permanent):
    """The guard inside the API server refused an epoch that is older than the one it holds."""


class Guarded(Temporary):
    """The guard inside the API server holds the state of a moment ago: it learns of a decision after a second or so."""


class Unusable(Temporary):
    """No answer, or none that can be read: asking again at once would only take longer."""


def failure(status: int, retry_after: str | None, raw: bytes | msgspec.Raw) -> Exception:
    """The error of an answer with this status, this Retry-After and this body."""
    whole = _said(bytes(raw))
    said, delay_s = whole[:MAX_SAID], _seconds(retry_after)
    match status:
        case 400 | 403 | 422 | 500 if (refused := _about_us(whole)) is not None:
            return refused
        case 409 | 410:
            return (Conflict if status == 409 else Expired)(said)
        case 429:
            return Temporary(
                f"the Kubernetes API asks for patience: {said}", retry_after_s=1.0 if delay_s is None else delay_s
            )
        case 403:
            return Forbidden(f"the controller may not do this (is its Role bound? is a quota used up?): {said}")
        case _ if status >= 500 or status in {401, 408}:
            return Temporary(f"the Kubernetes API answered {status}: {said}", retry_after_s=delay_s)
        case _:
            return Permanent(f"the Kubernetes API refused what we sent ({status}): {said}")


def _about_us(said: str) -> Exception | None:
    """What a refusal by our own definitions and policies means (crd.yaml, admission.yaml); None when it is none."""
    if "field not declared in schema" in said or "unknown field" in said:
        return Undeclared(f"the Kubernetes API has older definitions, apply k8s/manifests/base anew: {said[:MAX_SAID]}")
    if "stale decision" in said:
        return Outdated(said[:MAX_SAID])
    if "ValidatingAdmissionPolicy 'mailcordon-" in said:
        return Guarded(f"the guard does not let this pass yet: {said[:MAX_SAID]}")
    return None


def _said(raw: bytes) -> str:
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(raw, type=ApiStatus).message
    return raw[:MAX_SAID].decode("utf-8", "replace")


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds; the form with a date is not used by API servers and counts as none."""
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return float(retry_after)
