"""A relay in front of a unix socket. It records every request that passes Envoy."""

import os
import socket
import threading


class Relay:
    """Forwards bytes, and records the requests in them."""

    def __init__(self, front, behind):
        self.behind, self.requests = os.path.relpath(behind), []
        front.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.path.relpath(front))
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.behind)
            reader = Requests(self.requests)
            for source, target, look in ((client, server, reader.feed), (server, client, len)):
                threading.Thread(
                    target=self.pass_on, args=(source, target, look), daemon=True
                ).start()

    @staticmethod
    def pass_on(source, target, look):
        try:
            while data := source.recv(65536):
                look(data)
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Requests:
    """Parses the requests of one connection. Envoy writes valid HTTP/1.1."""

    def __init__(self, found):
        self.found, self.data, self.skip, self.chunked = found, b"", 0, False

    def feed(self, data):
        self.data += data
        while True:
            skipped = min(self.skip, len(self.data))
            self.data, self.skip = self.data[skipped:], self.skip - skipped
            end = b"\r\n" if self.chunked else b"\r\n\r\n"
            if self.skip or end not in self.data:
                return
            head, self.data = self.data.split(end, 1)
            if self.chunked:
                size = int(head, 16)
                self.skip, self.chunked = size + 2, size > 0
                continue
            first, *lines = head.split(b"\r\n")
            headers = [tuple(part.strip() for part in line.split(b":", 1)) for line in lines]
            headers = [(name.lower().decode(), value.decode("latin-1")) for name, value in headers]
            by_name = dict(headers)
            self.chunked = "chunked" in by_name.get("transfer-encoding", "")
            self.skip = int(by_name.get("content-length", 0))
            method, target, _ = first.decode("latin-1").split(" ")
            self.found.append((method, target, headers))
