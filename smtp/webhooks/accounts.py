"""Who may post feedback: the file that the setting ``webhooks_file`` names, read and checked when the role starts.

Secrets stand in files of their own, or are none: SES and SendGrid sign with keys that they keep.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from smtp.webhooks.sendgrid import public_key
from smtp.webhooks.sns import is_topic

_SHORTEST_PASSWORD = 12


class _Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    certificate: str | None = None
    key: str | None = None
    plain_http: bool = False


class _Ses(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    topic_arns: list[str]


class _SendGrid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    public_key: str


class _Postmark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    user: str
    password_file: str


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tls: _Tls = _Tls()
    ses: _Ses | None = None
    sendgrid: _SendGrid | None = None
    postmark: _Postmark | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What Postmark shows."""

    user: str
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The services that are let in, and how the server speaks; without ``certificate`` something else ends TLS."""

    certificate: tuple[Path, Path] | None
    topic_arns: tuple[str, ...] = ()
    sendgrid: ec.EllipticCurvePublicKey | None = None
    postmark: Credentials | None = None


def read_accounts(file: Path) -> Accounts:
    """Read the file; raises ValueError with a sentence that names the place and the fix."""
    try:
        found = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), _File)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as wrong:
        raise ValueError(f"webhooks_file {file}: {wrong}") from wrong
    try:
        accounts = Accounts(
            certificate=_certificate(found.tls, file.parent),
            topic_arns=_topics(found.ses),
            sendgrid=_key(found.sendgrid),
            postmark=_credentials(found.postmark, file.parent),
        )
    except ValueError as wrong:
        raise ValueError(f"webhooks_file {file}: {wrong}") from wrong
    if not (accounts.topic_arns or accounts.sendgrid or accounts.postmark):
        raise ValueError(f"webhooks_file {file}: it names no service; add [ses], [sendgrid] or [postmark]")
    return accounts


def _certificate(tls: _Tls, folder: Path) -> tuple[Path, Path] | None:
    match tls:
        case _Tls(certificate=str() as certificate, key=str() as key, plain_http=False):
            return folder / certificate, folder / key
        case _Tls(certificate=None, key=None, plain_http=True):
            return None
        case _:
            raise ValueError(
                "[tls] needs certificate and key; where something in front ends TLS, plain_http = true instead"
            )


def _topics(ses: _Ses | None) -> tuple[str, ...]:
    topics = tuple(ses.topic_arns) if ses is not None else ()
    if ses is not None and not topics:
        raise ValueError("[ses] topic_arns is empty; name the topics that SES publishes to")
    for arn in topics:
        if not is_topic(arn):
            raise ValueError(
                f"[ses] topic_arns: {arn!r} is no topic, such as arn:aws:sns:eu-west-1:123456789012:bounces"
            )
    return topics


def _key(sendgrid: _SendGrid | None) -> ec.EllipticCurvePublicKey | None:
    if sendgrid is None:
        return None
    try:
        return public_key(sendgrid.public_key)
    except ValueError as wrong:
        raise ValueError(f"[sendgrid] public_key: {wrong}") from wrong


def _credentials(postmark: _Postmark | None, folder: Path) -> Credentials | None:
    if postmark is None:
        return None
    file = folder / postmark.password_file
    try:
        mode = file.stat().st_mode
        password = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as wrong:
        raise ValueError(f"[postmark] password_file {file}: {wrong}") from wrong
    if mode & 0o007:
        raise ValueError(f"[postmark] password_file {file} can be read by everybody; run: chmod 640 {file}")
    if len(password) < _SHORTEST_PASSWORD or not postmark.user or ":" in postmark.user:
        raise ValueError(
            f"[postmark] needs a user without a colon and a password of {_SHORTEST_PASSWORD} characters or more"
        )
    return Credentials(postmark.user, password)
