"""What the controller counts.  A promise to dashboards: renaming one is a breaking change; no campaign in a label."""

from prometheus_client import Counter, Gauge, Histogram

RECONCILED = Counter(
    "mailcordon_controller_reconciled",
    "Passes over one campaign, by how they ended: nothing_to_do, done, in_progress, stale, temporary, permanent, bug.",
    ["result"],
)
CONTROL_TO_DONE = Histogram(
    "mailcordon_controller_control_to_done_seconds",
    "From the decision (time of its Control) until the place was read back as it asks for, by what was done.",
    ["act"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300),
)
WAITING = Gauge("mailcordon_controller_waiting", "Campaigns that wait for a worker now.")
DELAYED = Gauge("mailcordon_controller_delayed", "Campaigns that wait for their next try.")
RESYNCED_AT = Gauge(
    "mailcordon_controller_resynced_timestamp_seconds", "When all senders were last compared with the decisions."
)
SENDERS = Gauge("mailcordon_controller_senders", "Senders that are there, by state, as of the last resync.", ["state"])
