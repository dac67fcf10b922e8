"""Names, labels and annotations of Kubernetes objects: ours, and strangers' words made legal.

A label value has at most 63 characters of ``[A-Za-z0-9._-]`` and begins and ends with a letter or digit; a label
key's name part the same and at least one.  What has to be changed to fit gets a hash of the whole, so that
different words never become the same label; the words themselves stand in an annotation.
"""

import hashlib
import re

DOMAIN = "mailcordon.dev"

CAMPAIGN = f"{DOMAIN}/campaign"  # label: the campaign's name; annotation: its id as the owner wrote it
TENANT = f"{DOMAIN}/tenant"
STATE = f"{DOMAIN}/state"
FENCE = f"{DOMAIN}/fence"
REASON = f"{DOMAIN}/reason"
SINCE = f"{DOMAIN}/since"
SHAPE = f"{DOMAIN}/shape"
SOURCE = f"{DOMAIN}/source-address"  # annotation of a pod: the address that it was told to send from
STOPPED = f"{DOMAIN}/stopped"  # label of a Campaign that is isolated or retired: the admission policies find it by that
GUARDED = f"{DOMAIN}/guarded"  # label of a namespace in which the admission policies hold
OWNER_LABELS = f"labels.{DOMAIN}"

MANAGED_BY = "app.kubernetes.io/managed-by"
NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"

MOST_OWNER_LABELS = 32

_LEGAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_HASH_LENGTH = 12


def label_value(text: str) -> str:
    """The text itself where it is legal, else a readable part of it and a hash of the whole; empty stays empty."""
    return text if not text or _LEGAL.match(text) else _slug(text)


def label_key(text: str) -> str:
    """A key of the owner's own labels, under a prefix of ours so that it never shadows a key that means something."""
    return f"{OWNER_LABELS}/{text if _LEGAL.match(text) else _slug(text)}"


def _slug(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    readable = _UNSAFE.sub("-", text)[:40].strip("._-")
    return f"{readable}-{digest}" if readable else digest
