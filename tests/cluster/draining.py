"""A sender that sends nothing, as a pod's program: told to end, it ends as soon as nobody holds its drain."""

import os
import pathlib
import signal
import time

hold = pathlib.Path(os.environ["HOLD"])
told: list[int] = []
signal.signal(signal.SIGTERM, lambda which, _: told.append(which))
print("here", flush=True)
while not told or hold.exists():
    time.sleep(0.01)
