"""The certificate that is shown where no configured one fits, with two workers."""

import os
import re
import signal
import subprocess

from tests.integration.fleet import FleetCase
from tests.integration.front import Table
from tests.integration.process import requireProgram

LOOKS = 8
"""Connections; that all of them come to one worker of two happens once in a hundred times."""


class GeneratedTests(FleetCase):
    """One generated certificate for all processes."""

    def configuration(self) -> Table:
        """Two certificates, and neither is the default: who asks for no name is shown another."""
        config = super().configuration()
        other = self.authority.issue("other.test")
        files = {"cert": str(other.cert), "key": str(other.key)}
        config["tls"]["certificate"]["other"] = files
        return config

    def look(self, port: int) -> str:
        """The fingerprint that a client without a server name is shown."""
        program = requireProgram("openssl", "openssl")
        shaking = [program, "s_client", "-noservername", "-connect", f"127.0.0.1:{port}"]
        shown = subprocess.run(shaking, input=b"", capture_output=True, timeout=20, check=False)
        reading = [program, "x509", "-noout", "-subject", "-fingerprint", "-sha256"]
        told = subprocess.run(
            reading, input=shown.stdout, capture_output=True, timeout=20, check=True
        ).stdout.decode()
        self.assertIn("mailproxy.invalid", told)
        found = re.search(r"Fingerprint=(\S+)", told)
        assert found is not None, told
        return found[1]

    def shown(self) -> set[str]:
        """What workers and management show."""
        *listeners, management = self.proxy.ports()
        self.assertIn(self.proxy.portOf("imaps"), listeners)
        secure = self.proxy.portOf("imaps")
        return {self.look(management), *(self.look(secure) for _ in range(LOOKS))}

    def test_theSameEverywhereAndAlways(self) -> None:
        """At all workers and at management; when a worker was started anew; after a reload."""
        before = self.shown()
        self.assertEqual(len(before), 1)
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)
            self.assertEventually(lambda pid=pid: pid not in self.workers(), "it lives")
        self.assertServing(2)
        self.assertEqual(self.shown(), before)
        self.assertEqual(self.api("POST", "/config/reload").status, 200)
        self.assertEqual(self.shown(), before)
        warned = [line for line in self.proxy.log.lines() if "self-signed" in line]
        self.assertEqual(len(warned), 2, warned)
