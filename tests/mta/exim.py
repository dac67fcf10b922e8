"""Exim as the mail server of a domain: access lists, and greylisting by its own rate database."""

from tests.mta.rig import DOMAIN, MAILBOXES, MOST_BYTES, MOST_SESSIONS, Kind, Place

_CONFIGURATION = """\
primary_hostname = mx.@domain@
daemon_smtp_ports = @port@ : @clear_port@
local_interfaces = 127.0.0.1
disable_ipv6 = true
log_file_path = /var/log/exim4/%slog
pid_file_path = /run/exim.pid
keep_environment =
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max_per_host = @sessions@
smtp_accept_queue_per_connection = 0
message_size_limit = @size@
tls_advertise_hosts = ${if ={$received_port}{@port@}{*}{}}
tls_certificate = /etc/tls/cert.pem
tls_privatekey = /etc/tls/key.pem
acl_smtp_rcpt = rcpt
acl_smtp_data = data

begin acl

rcpt:
  deny    message = 552 5.2.2 mailbox is full
          local_parts = full
  deny    message = 554 5.7.1 you are not wanted here
          local_parts = policy
  defer   message = 452 4.3.1 Insufficient system storage
          local_parts = disk
  defer   message = 421 4.7.28 unusual rate of mail
          local_parts = busy
  defer   message = 450 4.2.0 Greylisted, please come back later
          local_parts = grey
          !ratelimit = 1.5 / 1h / strict / per_cmd / $sender_host_address $sender_address $local_part
  deny    message = 550 5.1.1 User unknown
          !verify = recipient
  accept

data:
  deny    message = 550 5.7.1 content is not wanted
          condition = ${if eq{$h_x-spam:}{yes}}
  accept

begin routers

mailboxes:
  driver = accept
  domains = @domain@
  local_parts = @mailboxes@
  local_part_suffix = +*
  local_part_suffix_optional
  transport = maildir

begin transports

maildir:
  driver = appendfile
  maildir_format
  directory = /mail/$local_part_data
  create_directory
  user = alice
  group = alice
  delivery_date_add
  envelope_to_add
  return_path_add

begin retry

* * F,1h,1m
"""


def _configure(place: Place) -> None:
    fields = {
        "domain": DOMAIN,
        "port": place.port,
        "clear_port": place.clear_port,
        "size": MOST_BYTES,
        "sessions": MOST_SESSIONS,
        "mailboxes": " : ".join(MAILBOXES),
    }
    text = _CONFIGURATION
    for name, value in fields.items():
        text = text.replace(f"@{name}@", str(value))
    place.write("etc/exim4/exim4.conf", text)
    place.folder("var/log/exim4", owner="Debian-exim")
    place.folder("var/spool/exim4", owner="Debian-exim")
    (place.run / "etc/tls/key.pem").chmod(0o644)  # read by the user that Exim becomes


EXIM = Kind(
    "Exim",
    "exim4-daemon-light",
    ("Debian-exim",),
    _configure,
    ("/usr/sbin/exim4", "-bdf"),
    ("var/log/exim4/mainlog", "var/log/exim4/paniclog"),
)
