#!/usr/bin/env python3
"""A backend for Sailfish in one file: takes events, and echoes each request back to its user by a push.

    BRIDGE_SECRET=... python3 backend.py 127.0.0.1:8080 http://127.0.0.1:5347

The first argument is where it listens, the second the control API of a gateway or bridge, to which it pushes;
CONTROL_SECRET is the secret of that one, if it has one. It needs nothing but Python 3.8. docs/BACKEND.md is the contract.

What it lacks for production: it keeps the ids that it has done in memory; a real backend keeps them where it
keeps the effect, in one transaction with it.
"""

import base64
import collections
import hashlib
import hmac
import json
import os
import queue
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["BRIDGE_SECRET"].encode()
CONTROL_SECRET = os.environ.get("CONTROL_SECRET", "")
# A request whose timestamp is further away is a recording.
CLOCK_SKEW_MS_MAX = 5 * 60 * 1000
BODY_BYTES_MAX = 4 << 20
DONE_MAX = 100_000


class Done:
    """The ids of the events that are done, the oldest forgotten first."""

    def __init__(self):
        self.lock = threading.Lock()
        self.ids = collections.OrderedDict()

    def first_time(self, event_id):
        with self.lock:
            if event_id in self.ids:
                return False
            self.ids[event_id] = True
            if len(self.ids) > DONE_MAX:
                self.ids.popitem(last=False)
            return True


DONE = Done()
PUSHES = queue.Queue(maxsize=10_000)


def is_signed(timestamp, signature, body):
    """Whether the bridge sent this, and not long ago."""
    if not timestamp.isdecimal() or abs(time.time() * 1000 - int(timestamp)) > CLOCK_SKEW_MS_MAX:
        return False
    expected = hmac.new(SECRET, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, signature)


def payload(event):
    """The payload's bytes."""
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"])
    return event["data"].encode()


def handle(event):
    """Does what the event asks for, once, and says what became of it."""
    if event["type"] == "request" and event["biz_code"] < 0:
        return {"id": event["id"], "status": "refused", "reason": "no such business code"}
    if PUSHES.full():
        return {"id": event["id"], "status": "retry"}
    if DONE.first_time(event["id"]):
        print(json.dumps(event), flush=True)
        if event["type"] == "request":
            PUSHES.put({
                "app": event["app"],
                "user": event["user"],
                "biz_code": 6001,
                # Its own name: a push that is sent again is delivered once.
                "client_msg_id": "echo-" + hashlib.sha256(event["id"].encode()).hexdigest()[:32],
                "data_base64": base64.b64encode(payload(event)).decode(),
            })
    return {"id": event["id"], "status": "ok"}


def push(control):
    """Sends what waits, in batches, until each is taken."""
    while True:
        batch = [PUSHES.get()]
        while len(batch) < 1000 and not PUSHES.empty():
            batch.append(PUSHES.get())
        headers = {"Content-Type": "application/json"}
        if CONTROL_SECRET:
            headers["Authorization"] = "Bearer " + CONTROL_SECRET
        body = json.dumps({"pushes": batch}).encode()
        while True:
            try:
                request = urllib.request.Request(control + "/v1/push", body, headers)
                with urllib.request.urlopen(request, timeout=35) as answer:
                    json.load(answer)
                break
            except OSError as error:
                print("push:", error, file=sys.stderr, flush=True)
                time.sleep(1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    timeout = 30  # seconds in which a caller must go on, so that silent ones do not hold threads for ever

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413, {"message": "want a body of at most %d bytes" % BODY_BYTES_MAX})
        body = self.rfile.read(int(length))
        if self.path != "/bridge/events":
            return self.answer(404, {"message": "no such path"})
        if not is_signed(self.headers.get("X-Sailfish-Timestamp", ""), self.headers.get("X-Sailfish-Signature", ""), body):
            return self.answer(401, {"message": "the signature is wrong"})
        try:
            results = [handle(event) for event in json.loads(body)["events"]]
        except (ValueError, KeyError, TypeError) as error:
            return self.answer(400, {"message": repr(error)})
        self.answer(200, {"results": results})

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    threading.Thread(target=push, args=(sys.argv[2].rstrip("/"),), daemon=True).start()
    server = Server((host, int(port)), Handler)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
