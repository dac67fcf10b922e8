"""OpenSMTPD as the mail server of a domain: its built-in filters, and greylisting by a filter process."""

from tests.mta.rig import DOMAIN, MOST_BYTES, Kind, Place

_CONFIGURATION = """\
pki rcpt cert "/etc/tls/cert.pem"
pki rcpt key "/etc/tls/key.pem"
smtp max-message-size {size}
filter full phase rcpt-to match rcpt-to "full@{domain}" reject "552 5.2.2 mailbox is full"
filter policy phase rcpt-to match rcpt-to "policy@{domain}" reject "554 5.7.1 you are not wanted here"
filter disk phase rcpt-to match rcpt-to "disk@{domain}" reject "452 4.3.1 Insufficient system storage"
filter busy phase rcpt-to match rcpt-to "busy@{domain}" disconnect "421 4.7.28 unusual rate of mail"
filter own proc-exec "/bin/sh /etc/filter"
filter all chain {{ full, policy, disk, busy, own }}
listen on 127.0.0.1 port {port} tls pki rcpt hostname mx.{domain} filter all
listen on 127.0.0.1 port {clear_port} hostname mx.{domain} filter all
action deliver maildir "/mail/%{{user.username}}"
match from any for domain "{domain}" action deliver
"""

_FILTER = """\
# A filter (smtpd-filters(7)): greylists by address, sender and recipient, and refuses content that says it is spam.
while IFS= read -r line; do
    [ "$line" = "config|ready" ] && break
done
printf 'register|report|smtp-in|link-connect\\nregister|report|smtp-in|link-disconnect\\n'
printf 'register|report|smtp-in|tx-begin\\nregister|report|smtp-in|tx-mail\\n'
printf 'register|filter|smtp-in|rcpt-to\\nregister|filter|smtp-in|data-line\\nregister|filter|smtp-in|commit\\n'
printf 'register|ready\\n'
while IFS= read -r line; do
    rest=${line#*|*|*|*|}  # event|session|more
    event=${rest%%|*} rest=${rest#*|}
    session=${rest%%|*} rest=${rest#*|}
    case $event in
        link-connect)
            rest=${rest#*|*|}
            printf %s "${rest%%|*}" | sed 's/:[0-9]*$//' >/tmp/address-"$session" ;;
        link-disconnect) rm -f /tmp/*-"$session" ;;
        tx-begin) rm -f /tmp/spam-"$session" ;;
        tx-mail) printf %s "${rest#*|}" >/tmp/sender-"$session" ;;
        rcpt-to)
            answer=proceed
            case ${rest#*|} in
                grey@*)
                    seen=/tmp/seen-$(cat /tmp/address-"$session" /tmp/sender-"$session" | sha256sum | cut -c1-32)
                    [ -e "$seen" ] || { : >"$seen"; answer="reject|450 4.2.0 Greylisted, please come back later"; } ;;
            esac
            printf 'filter-result|%s|%s|%s\\n' "$session" "${rest%%|*}" "$answer" ;;
        data-line)
            [ "${rest#*|}" = "X-Spam: yes" ] && : >/tmp/spam-"$session"
            printf 'filter-dataline|%s|%s\\n' "$session" "$rest" ;;
        commit)
            answer=proceed
            [ -e /tmp/spam-"$session" ] && answer="reject|550 5.7.1 content is not wanted"
            printf 'filter-result|%s|%s|%s\\n' "$session" "${rest%%|*}" "$answer" ;;
    esac
done
"""


def _configure(place: Place) -> None:
    place.write(
        "etc/smtpd.conf",
        _CONFIGURATION.format(domain=DOMAIN, port=place.port, clear_port=place.clear_port, size=MOST_BYTES),
        mode=0o640,
    )
    place.write("etc/filter", _FILTER)
    place.folder("var/lib/opensmtpd/empty")
    place.folder("var/spool/smtpd", mode=0o711)


OPENSMTPD = Kind(
    "OpenSMTPD",
    "opensmtpd",
    ("opensmtpd", "opensmtpq"),
    _configure,
    ("/usr/sbin/smtpd", "-d", "-f", "/etc/smtpd.conf"),
    limits_sessions=False,
    cannot_encrypt="opensmtpd=6.8.",  # its private keys stay in another process: OpenSSL 3 cannot do that
)
