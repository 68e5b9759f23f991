"""A list of people. POST a name to add it; GET shows the last five. v1: a person has a name."""

import signal
import sqlite3
import sys
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, VERSION = int(sys.argv[1]), sys.argv[2]


def add(db, text):
    db.execute("INSERT INTO people (name) VALUES (?)", (text,))


def last_five(db):
    rows = db.execute("SELECT name FROM people ORDER BY id DESC LIMIT 5")
    return [name for (name,) in rows]


class People(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer leaves in one piece

    def do_GET(self):
        if self.path == "/healthz":
            self.answer("well")
            return
        with database() as db:
            self.answer(f"{VERSION}: " + "; ".join(last_five(db)))

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with database() as db:
            add(db, text)
        self.answer(f"{VERSION}: added {text}")

    def answer(self, text):
        body = f"{text}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Version", VERSION)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128


def database():
    return closing(sqlite3.connect("data/people.db", timeout=10, isolation_level=None))


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
Server(("127.0.0.1", PORT), People).serve_forever()
