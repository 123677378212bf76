"""How a proxy starts and stops under a service manager, and with which rights it runs."""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from twisted.trial.unittest import SkipTest

from tests.integration.accounts import ALICE
from tests.integration.front import destination
from tests.integration.network import freePort, isListening
from tests.integration.operating import OperatingCase
from tests.integration.process import ServerFailed, waitUntil
from tests.integration.proxy import ProxyProcess
from tests.integration.scripted import ScriptedServer, wellBehaved
from tests.integration.wire import LineClient

ETC = Path(__file__).parents[2] / "etc"

LAUNCHER = """
import os, socket, sys
names, *command = sys.argv[1:]
for number, (name, at) in enumerate(each.split("=") for each in names.split()):
    family = socket.AF_INET6 if at.startswith("[") else socket.AF_INET
    host, _, port = at.rpartition(":")
    given = socket.socket(family)
    given.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        given.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    given.bind((host.strip("[]"), int(port)))
    given.listen(16)
    os.dup2(given.detach(), 3 + number)
    os.set_inheritable(3 + number, True)
os.environ.update(
    LISTEN_PID=str(os.getpid()),
    LISTEN_FDS=str(len(names.split())),
    LISTEN_FDNAMES=":".join(each.split("=")[0] for each in names.split()),
)
os.execv(command[0], command)
"""
"""What systemd does before it runs us: its arguments are `NAME=HOST:PORT ...` and the command."""


class Activated(ProxyProcess):
    """A proxy whose sockets are handed to it.

    :ivar given: `NAME=HOST:PORT`, in the order of their descriptors.
    """

    given: Sequence[str] = ()

    def command(self) -> Sequence[str]:
        """The launcher, which becomes the proxy."""
        return [sys.executable, "-c", LAUNCHER, " ".join(self.given), *super().command()]


class NotifyTests(OperatingCase):
    """What the service manager is told."""

    def setUp(self) -> None:
        """Be a service manager."""
        super().setUp()
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.settimeout(30)

    def test_readyThenStopping(self) -> None:
        """Ready once it serves; stopping at SIGTERM, while a session is still being drained."""
        address = str(self.authority.caFile.with_name("notify"))
        self.manager.bind(address)
        self.config["server"]["shutdown_grace"] = "40s"
        proxy = self.run_(env={"NOTIFY_SOCKET": address})
        self.assertEqual(self.manager.recv(100), b"READY=1")
        client = self.logIn()
        self.assertEqual(client.readLine(), b"a OK Logged in")
        proxy.signal(signal.SIGTERM)
        self.assertEqual(self.manager.recv(100), b"STOPPING=1")
        client.send(b"still here\r\n")
        self.assertEqual(client.readLine(), b"* echo still here")
        client.close()
        self.assertEqual(proxy.wait(), 0)

    def test_reloading(self) -> None:
        """`systemctl reload` lasts until it is done; a file that is refused ends it too."""
        name = f"mailproxy-test-reloading-{os.getpid()}"
        self.manager.bind(f"\0{name}")
        proxy = self.run_(env={"NOTIFY_SOCKET": f"@{name}"})
        self.assertEqual(self.manager.recv(100), b"READY=1")
        for default in ("only", "gone"):
            self.config["routing"]["default_destination"] = default
            proxy.writeConfiguration()
            proxy.signal(signal.SIGHUP)
            self.assertTrue(self.manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC="))
            self.assertEqual(self.manager.recv(100), b"READY=1")
        proxy.log.waitForLine("not reloaded: routing.default_destination")

    def test_aBadConfigurationIsNeverReady(self) -> None:
        """A manager that waits for us learns of the end by the exit status."""
        name = f"mailproxy-test-notify-{os.getpid()}"
        self.manager.bind(f"\0{name}")
        self.manager.settimeout(0)
        self.config["routing"]["default_destination"] = "gone"
        self.make(env={"NOTIFY_SOCKET": f"@{name}"})
        self.assertRaises(ServerFailed, self.proxy.start)
        self.assertRaises(BlockingIOError, self.manager.recv, 100)


class ActivationTests(OperatingCase):
    """Sockets from systemd."""

    def activate(self, binds: Sequence[str], *given: str) -> Activated:
        """Make a proxy whose listener has these binds, and gets these sockets."""
        self.config["listener"]["imap"]["bind"] = list(binds)
        proxy = self.make(kind=Activated)
        assert isinstance(proxy, Activated)
        proxy.given = given
        return proxy

    def test_byNameAndByIndex(self) -> None:
        """Both families; logins pass, and the client's own address is seen."""
        four, six = freePort(), freePort()
        binds = ("systemd:domain=INET:name=imap4", "systemd:domain=INET6:index=1")
        proxy = self.activate(binds, f"imap4=127.0.0.1:{four}", f"imap6=[::1]:{six}")
        proxy.start()
        for host, port in (("127.0.0.1", four), ("::1", six)):
            with socket.create_connection((host, port), 10) as plain:
                plain.close()
            with LineClient(port, host=host) as client:
                self.assertTrue(client.readLine().startswith(b"* OK "))
                client.send(b"a LOGIN %b %b\r\n" % (ALICE.name.encode(), ALICE.password))
                client.readLine()
        proxy.log.waitForLine(r"from \[::1\]:\d+")
        self.assertEqual(proxy.stop(), 0)

    def test_loopThroughAGivenSocketIsSeen(self) -> None:
        """Its address is known to be our own."""
        port = freePort()
        loop = destination(port, "x", "plain", allow_plaintext_auth=True)
        del loop["tls_server_name"]
        self.config["destination"]["only"] = loop
        proxy = self.activate(["systemd:domain=INET:index=0"], f"imap=127.0.0.1:{port}")
        proxy.start()
        with LineClient(port) as client:
            client.readLine()
            client.send(b"a LOGIN x y\r\n")
            self.assertIn(b"UNAVAILABLE", client.readLine())
        proxy.log.waitForLine("is our own listener")

    def test_socketThatIsMissing(self) -> None:
        """Is named, and ends the start."""
        proxy = self.activate(["systemd:domain=INET:name=imaps"], f"imap=127.0.0.1:{freePort()}")
        with self.assertRaisesRegex(
            ServerFailed, r"listener\.imap\.bind: .*systemd has passed no such socket"
        ):
            proxy.start()

    def test_theSystemsOwnLauncher(self) -> None:
        """`systemd-socket-activate` is systemd's word on how sockets are handed over."""
        launcher = shutil.which("systemd-socket-activate")
        if launcher is None:
            raise SkipTest("systemd-socket-activate is not installed")
        port = freePort()
        self.config["listener"]["imap"]["bind"] = ["systemd:domain=INET:name=imap"]
        proxy = self.make()
        proxy.writeConfiguration()
        command = [launcher, f"--listen=127.0.0.1:{port}", "--fdname=imap", *proxy.command()]
        environment = {f"--setenv={key}={value}" for key, value in proxy.environment().items()}
        command[1:1] = sorted(environment)
        child = subprocess.Popen(
            command, cwd=proxy.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(child.wait)
        self.addCleanup(child.terminate)
        self.assertTrue(waitUntil(lambda: isListening(port), 20))
        with LineClient(port) as client:
            self.assertTrue(client.readLine().startswith(b"* OK "))


class PrivilegeTests(OperatingCase):
    """Ports below 1024 without running as root.

    :cvar kind: of the proxies.
    """

    kind: ClassVar[type[ProxyProcess]] = ProxyProcess

    def setUp(self) -> None:
        """Root can give its rights up; nobody else has any to give."""
        super().setUp()
        if os.geteuid() != 0:
            raise SkipTest("only root can test this")
        self.nobody = pwd.getpwnam("nobody")

    def lowPort(self) -> int:
        """A free port below 1024."""
        for port in range(1023, 900, -1):
            if not isListening(port):
                return port
        raise SkipTest("no free port below 1024")

    def test_boundThenDropped(self) -> None:
        """The user changes after the sockets are bound; mappings can still be read and written."""
        other = self.stack.enter_context(ScriptedServer(wellBehaved))
        new = destination(other.port, "x", "plain", allow_plaintext_auth=True)
        del new["tls_server_name"]
        self.config["destination"]["new"] = new
        self.config["listener"]["imap"]["bind"] = [f"127.0.0.1:{self.lowPort()}"]
        proxy = self.make(kind=self.kind, flags=("--uid=nobody", "--gid=nogroup"))
        for path in (proxy.folder, proxy.mapping):
            os.chown(path, self.nobody.pw_uid, self.nobody.pw_gid)
        proxy.start()
        proxy.log.waitForLine("set uid/gid")  # the sockets were there before
        for pid in {proxy.pid, *self.servers()}:
            self.assertRightsDropped(pid)

        proxy.writeMapping({"bob": "new"})
        answer = self.api("POST", "/mappings/reload")
        self.assertEqual(answer.status, 200, answer.text + proxy.log.text())
        self.assertEqual(self.destinationOf("bob"), "new")
        done = self.api("PUT", "/mappings", identifier="carol", destination="new")
        self.assertEqual((done.status, self.destinationOf("carol")), (200, "new"))
        self.assertEqual(proxy.mapping.stat().st_uid, self.nobody.pw_uid)
        proxy.mapping.write_text("bob nowhere\n")
        self.assertEqual(self.api("POST", "/mappings/reload").status, 400)
        self.assertEqual(self.logIn().readLine(), b"a OK Logged in")

    def servers(self) -> list[int]:
        """The processes that serve."""
        return [int(each["pid"]) for each in self.api("GET", "/stats").json()["workers"]]

    def assertRightsDropped(self, pid: int) -> None:
        """All four user and group ids are nobody's, and no capability is left."""
        status = Path(f"/proc/{pid}/status").read_text("ascii")
        fields = {
            name: values.split()
            for name, _, values in (line.partition(":") for line in status.splitlines())
        }
        self.assertEqual(fields["Uid"], [str(self.nobody.pw_uid)] * 4)
        self.assertEqual(fields["Gid"], [str(self.nobody.pw_gid)] * 4)
        self.assertNotIn("0", fields["Groups"])
        self.assertEqual(int(fields["CapEff"][0], 16), 0)

    def destinationOf(self, identifier: str) -> str:
        """Where management says that an account goes."""
        return str(self.api("GET", "/mappings", identifier=identifier).json()["destination"])


class RootTests(OperatingCase):
    """`twistd --chroot`: another root directory."""

    def setUp(self) -> None:
        """Only root may change it."""
        super().setUp()
        if os.geteuid() != 0:
            raise SkipTest("only root can test this")

    def jail(self, *, complete: bool) -> str:
        """A directory for it, with or without what one process needs."""
        path = self.stack.enter_context(TemporaryDirectory())
        if complete:
            Path(path, "dev").mkdir()
            _makeNull(Path(path, "dev/null"))
        return path

    def assertRefused(self, jail: str, *words: str) -> None:
        """The start is refused, with these words and nothing else."""
        proxy = self.make(flags=(f"--chroot={jail}",))
        self.assertRaises(ServerFailed, proxy.start)
        lines = [line for line in proxy.log.lines() if "--chroot" in line]
        self.assertEqual(len(lines), len(words), proxy.log.text())
        for line, word in zip(lines, words, strict=True):
            self.assertIn(word, line)
        self.assertNotIn("Traceback", proxy.log.text())

    def test_oneProcess(self) -> None:
        """It has everything with it, but for files that are read again."""
        jail = self.jail(complete=True)
        proxy = self.run_(flags=(f"--chroot={jail}",))
        self.assertEqual(self.logIn().readLine(), b"a OK Logged in")
        self.assertEqual(str(Path(f"/proc/{proxy.pid}/root").readlink()), jail)
        self.assertEqual(self.api("POST", "/config/reload").status, 400)
        inside = Path(f"{jail}{proxy.folder}")
        inside.parent.mkdir(parents=True)
        shutil.copytree(proxy.folder, inside)
        authority = Path(self.authority.caFile).parent
        shutil.copytree(authority, f"{jail}{authority}", dirs_exist_ok=True)
        answer = self.api("POST", "/config/reload")
        self.assertEqual(answer.status, 200, answer.text)

    def test_severalProcesses(self) -> None:
        """Workers are started inside of it: without an interpreter there the start is refused."""
        self.config["server"]["threads"] = 2
        self.assertRefused(self.jail(complete=True), "server.threads = 1")

    def test_emptyDirectory(self) -> None:
        """Everything that is missing is named."""
        self.config["server"]["threads"] = 2
        self.assertRefused(self.jail(complete=False), "no dev/null", "server.threads = 1")


def _makeNull(path: Path) -> None:
    """Make the device; skip the test where that is forbidden, in a container for instance."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path.read_bytes()
    except PermissionError as error:
        raise SkipTest(f"no device can be used in {path.parent}: {error}") from error


class UnitTests(OperatingCase):
    """The units, as systemd's own tools judge them."""

    def analyze(self, *words: str) -> str:
        """Run `systemd-analyze`; it must find nothing to complain about."""
        program = shutil.which("systemd-analyze")
        if program is None:
            raise SkipTest("systemd-analyze is not installed")
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=60, check=False
        )
        if "Unknown" in done.stderr or "unrecognized option" in done.stderr:
            raise SkipTest(f"systemd-analyze is too old: {done.stderr}")
        self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr)
        return done.stdout + done.stderr

    def installed(self) -> list[str]:
        """Both units as files whose program exists."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for name in ("mailproxy.service", "mailproxy.socket"):
            text = (ETC / name).read_text().replace("/opt/mailproxy/bin/twistd", "/bin/true")
            (folder / name).write_text(text)
        return [str(path) for path in sorted(folder.iterdir())]

    def test_unitsAreSound(self) -> None:
        """No unknown key, no value that makes no sense."""
        self.assertEqual(self.analyze("verify", *self.installed()).strip(), "")

    def test_serviceIsLockedUp(self) -> None:
        """An exposure of 2.0 at most, of 10; most that is left is the network."""
        service, _ = self.installed()
        self.analyze("security", "--offline=true", "--threshold=20", service)
