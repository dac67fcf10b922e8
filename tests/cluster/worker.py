"""A pod's program for the tests: says what it sees, answers a probe, and ends politely or not at all."""

import http.server
import json
import os
import pathlib
import signal
import sys

manner, address, file = sys.argv[1:4]
host, port = address.rsplit(":", 1)
signal.signal(signal.SIGTERM, signal.SIG_IGN if manner == "stubborn" else lambda *_: sys.exit(0))
said = {
    "pid": os.getpid(),
    "file": pathlib.Path(file).read_text(),
    "environment": {name: value for name, value in os.environ.items() if name.startswith("SEEN_")},
}
print(json.dumps(said), flush=True)


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


http.server.HTTPServer((host, int(port)), Answer).serve_forever()
