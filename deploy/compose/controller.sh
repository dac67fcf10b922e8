#!/bin/sh
# The controller with its senders in one container.  A container ends with its first process, and a sender that is
# killed leaves messages in doubt: so when the controller ends, wait until its senders have ended as well.
set -eu

# The shell becomes the controller, so that its process id is known: senders inherit it, and end when it is gone.
sh -c 'export MAILCORDON_EXIT_WITH=$$; exec mailcordon controller' &
controller=$!
trap 'kill -TERM "$controller" 2>/dev/null || true' TERM INT

code=0
while kill -0 "$controller" 2>/dev/null; do
    code=0
    wait "$controller" || code=$?
done

waited=0
while grep -lszx sender /proc/[0-9]*/cmdline >/dev/null && [ "$waited" -lt "${MAILCORDON_GRACE_S:-20}" ]; do
    sleep 1
    waited=$((waited + 1))
done
exit "$code"
