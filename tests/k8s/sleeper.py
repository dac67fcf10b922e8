"""A sender that sends nothing: it says that it is there, and ends when told to, early, late or never."""

import os
import signal
import sys
import time

campaign, ordinal, manner = sys.argv[1:4]
told: list[float] = []
if manner == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: told.append(time.monotonic()))
print(f"here {campaign!r} {ordinal} {os.getpid()} {os.environ.get('GREETING', '')}", flush=True)
if manner == "fails":
    sys.exit(7)
drain_s = float(os.environ.get("DRAIN_S", "0.05"))
while not told or time.monotonic() < told[0] + drain_s:
    time.sleep(0.01)
print("bye", flush=True)
