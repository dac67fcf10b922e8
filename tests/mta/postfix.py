"""Postfix as the mail server of a domain: virtual mailboxes, access maps, and greylisting by a policy service."""

from tests.mta.rig import DOMAIN, MAILBOXES, MOST_BYTES, MOST_SESSIONS, Kind, Place

_MAIN = """\
compatibility_level = 3.6
mail_owner = postfix
setgid_group = postdrop
maillog_file = /var/log/mail.log
myhostname = mx.{domain}
mydestination =
mynetworks = 127.0.0.254/32
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
recipient_delimiter = +
virtual_mailbox_domains = {domain}
virtual_mailbox_base = /mail
virtual_mailbox_maps = inline:{{ {mailboxes} }}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
virtual_mailbox_limit = 0
message_size_limit = {size}
header_checks = regexp:/etc/postfix/header_checks
smtpd_tls_security_level = may
smtpd_tls_cert_file = /etc/tls/cert.pem
smtpd_tls_key_file = /etc/tls/key.pem
smtpd_client_connection_count_limit = {sessions}
smtpd_client_event_limit_exceptions =
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions =
  check_recipient_access texthash:/etc/postfix/recipients, check_policy_service unix:private/grey,
  reject_unlisted_recipient
"""

_RECIPIENTS = """\
full@{domain} 552 5.2.2 mailbox is full
policy@{domain} 554 5.7.1 you are not wanted here
busy@{domain} 421 4.7.28 unusual rate of mail
disk@{domain} 452 4.3.1 Insufficient system storage
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{clear_port} inet n - n - - smtpd -o smtpd_tls_security_level=none
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
grey unix - n n - 0 spawn user=nobody argv=/bin/sh /etc/postfix/grey
"""

_GREY = """\
# A policy service (SMTPD_POLICY_README): the first try of an address, sender and recipient waits, the next may pass.
while :; do
    client= sender= recipient=
    while IFS= read -r line && [ -n "$line" ]; do
        case $line in
            client_address=*) client=${line#*=} ;;
            sender=*) sender=${line#*=} ;;
            recipient=*) recipient=${line#*=} ;;
        esac
    done
    [ -n "$client" ] || exit 0
    seen=/tmp/seen-$(printf %s "$client $sender $recipient" | sha256sum | cut -c1-32)
    action=dunno
    case $recipient in
        grey@*) [ -e "$seen" ] || { : >"$seen"; action="450 4.2.0 Greylisted, please come back later"; } ;;
    esac
    printf 'action=%s\\n\\n' "$action"
done
"""


def _configure(place: Place) -> None:
    fields = {"domain": DOMAIN, "port": place.port, "clear_port": place.clear_port, "size": MOST_BYTES}
    boxes = ", ".join(f"{{ {name}@{DOMAIN} = {name}/ }}" for name in MAILBOXES)
    place.write(
        "etc/postfix/main.cf",
        _MAIN.format(mailboxes=boxes, uid=place.ids["alice"][0], sessions=MOST_SESSIONS, **fields),
    )
    place.write("etc/postfix/master.cf", _MASTER.format(**fields))
    place.write("etc/postfix/recipients", _RECIPIENTS.format(**fields))
    place.write("etc/postfix/header_checks", "/^X-Spam: yes/ REJECT content is not wanted\n")
    place.write("etc/postfix/grey", _GREY)
    place.folder("var/log")
    place.folder("var/lib/postfix", owner="postfix")
    place.folder("var/spool/postfix")


POSTFIX = Kind(
    "Postfix",
    "postfix",
    ("postfix", "postdrop"),
    _configure,
    ("/usr/sbin/postfix", "start-fg"),
    ("var/log/mail.log",),
)
