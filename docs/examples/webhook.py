"""Webhooks of a Sailfish backend: refuses messages with a word, stars out another, and prints what it is told.

Run it: HOOK_SECRET='as backend.hook_secret' python3 webhook.py 127.0.0.1:9090
"""
import hashlib, hmac, json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Hooks(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

    def do_POST(self):
        body, stamp = self.rfile.read(int(self.headers["Content-Length"])), self.headers["X-Sailfish-Timestamp"]
        right = hmac.new(os.environb[b"HOOK_SECRET"], stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        is_ours = hmac.compare_digest(right, self.headers["X-Sailfish-Signature"])
        is_fresh = abs(time.time() - int(stamp) / 1000) < 300
        status, answer = (200, self.answer(json.loads(body))) if is_ours and is_fresh else (401, {})
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def answer(self, told):
        if told["hook"] in ("offline_push", "after_gift"):
            for event in told["events"]:  # an event may come twice, with the same id
                print(told["hook"], event["id"], flush=True)
            return {}
        text = told["event"].get("data", "")
        if "casino" in text:
            return {"action": "refuse", "reason": "no advertising"}
        return {"action": "replace", "data": text.replace("damn", "****")} if "damn" in text else {"action": "allow"}

host, port = sys.argv[1].split(":")
ThreadingHTTPServer((host, int(port)), Hooks).serve_forever()
