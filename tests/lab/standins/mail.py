"""A mail server (RFC 5321) on port 25 that takes one message after the other: python mail.py TOKEN."""

from __future__ import annotations

import socketserver
import sys


class _Mail(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """What it has taken it names by the token; to whoever it does not know it says so."""
        self.say("220 mail.internet.test ESMTP")
        while line := self.rfile.readline():
            verb = line.split()[0].decode().upper() if line.split() else ""
            if verb in ("EHLO", "HELO"):
                self.say(f"250 hello [{self.client_address[0]}]")
            elif verb in ("MAIL", "RCPT", "RSET", "NOOP"):
                self.say("250 fine")
            elif verb == "DATA":
                self.say("354 go on")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                self.say(f"250 queued as {sys.argv[1]}")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("502 not known here")

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("0.0.0.0", 25), _Mail).serve_forever()
