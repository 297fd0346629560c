"""A stand-in for the model server that starts in a moment and misbehaves on request.

stand_in.py MODE [the options of graylift.serve]; MODE: ready, starting (never ready), crash (exit 3), deaf (to SIGTERM)
"""

import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

mode, options = sys.argv[1], sys.argv[2:]
port = int(options[options.index("--port") + 1])
print("stand-in starts with", *options, flush=True)
if mode == "crash":
    print("cannot load the engine", file=sys.stderr)
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "deaf" else lambda *_: sys.exit(0))


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(503 if mode == "starting" else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


HTTPServer.allow_reuse_address = True
HTTPServer(("127.0.0.1", port), Answer).serve_forever()
