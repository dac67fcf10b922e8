"""Simulated mailbox providers: SMTP servers on loopback that behave like the large ones, for tests, for the demo, and
for whoever wants to try a set-up before real mailboxes see it.

What a provider does is said by the recipient's local part (``behaviour.BEHAVIOURS``, longest prefix first):

    unknown…     at RCPT TO   550 5.1.1
    disabled…    at RCPT TO   550 5.2.1
    full…        at RCPT TO   452 4.2.2, every time
    grey…        at RCPT TO   451 4.7.1 until grey_s after the first try of that address, then accepted
    block…       at RCPT TO   554 5.7.1, blocked
    content…     at the dot   550 5.7.1 (the whole transaction)
    slow…        at the dot   taken at once, answered after slow_s
    drop…        at the dot   taken, then closed without a reply, once per message
    dropalways…  at the dot   taken, then closed without a reply, every time
    late…        later        250, then a delivery status notification (RFC 3464) to the return path
    complain…    later        250, then an abuse report (RFC 5965) to the return path
    else                      250

and by its load rules per source address (``behaviour.Load``): 421 4.7.0 above so many connections or messages a
second, 554 5.7.1 after so many complaints about one return path domain.  Mail for a trap domain is answered with 250
and silence, and handed on to the return path with its envelope unchanged.

Each provider appends what it saw to ``<logs>/<name>.jsonl`` before it answers (``log.Seen``).  With the same seed the
same messages meet the same fate, whatever the order in which they come; only the clock is real.
"""

from smtp.simulate.behaviour import BEHAVIOURS, Behaviour, Load, table
from smtp.simulate.config import DEFAULT_PROVIDERS, Config, Provider, listen_at, listen_by_domain
from smtp.simulate.log import Seen, doubled, last_mail_from_at, read_logs
from smtp.simulate.providers import SimulatedProviders, run

__all__ = [
    "BEHAVIOURS",
    "DEFAULT_PROVIDERS",
    "Behaviour",
    "Config",
    "Load",
    "Provider",
    "Seen",
    "SimulatedProviders",
    "doubled",
    "last_mail_from_at",
    "listen_at",
    "listen_by_domain",
    "read_logs",
    "run",
    "table",
]
