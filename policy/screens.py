"""Screens: further reasons not to write to a well-formed address.

A screen looks at one checked address and answers with a machine reason and a sentence, or with None.  Lists of
disposable domains or known traps plug in here; role accounts that must never get a campaign are the one that is
always on.  The sentence must not quote the address.
"""

from collections.abc import Callable

from policy.addresses import CheckedAddress

Screen = Callable[[CheckedAddress], tuple[str, str] | None]

_NEVER = frozenset(
    {
        *("abuse", "postmaster", "hostmaster", "webmaster", "noc", "security", "mailerdaemon", "spam", "junk", "root"),
        *("noreply", "donotreply", "dontreply", "noresponse", "uucp", "usenet", "listrequest"),
        *("ispfeedback", "bounce", "bounces", "devnull", "nobody"),
    }
)
_NOISE = str.maketrans("", "", "-_.")
_REFUSAL = (
    "role_account",
    "belongs to a function of its domain and not to a person who signed up; remove it from the list",
)


def role_accounts(checked: CheckedAddress) -> tuple[str, str] | None:
    """Refuse ``abuse@``, ``postmaster@``, ``no-reply@`` and the like (RFC 2142): mail to them is read as abuse.

    Compared are the letters before the first ``+``, without ``-``, ``_`` and ``.``.
    """
    name = checked.local.partition("+")[0].casefold().translate(_NOISE)
    if name in _NEVER or checked.local.casefold().endswith("-request"):
        return _REFUSAL
    return None


ALWAYS: tuple[Screen, ...] = (role_accounts,)
