"""`twistd mailproxy`: its options, what it builds of a configuration, and what it refuses."""

import io
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Any, cast

from twisted.application.service import (
    Application,
    IServiceCollection,
    IServiceMaker,
    MultiService,
    Service,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.plugin import IPlugin
from twisted.python import usage
from twisted.python.reflect import namedAny
from zope.interface.verify import verifyObject

from mailproxy import demo, tap
from mailproxy.demo import DemoSetup
from mailproxy.logformat import asJSON, asText
from mailproxy.logs import Logger
from mailproxy.mapping import drivers
from mailproxy.protocols.imap import IMAPServerFactory
from mailproxy.tap import CONFIG_VARIABLE, Options, makeService
from tests.config.support import MINIMAL, TOKEN, ConfigTestCase, changed
from tests.mapping.test_file import atOnce

ENDPOINT = changed(('"127.0.0.1:993"', '"tcp:10993:interface=127.0.0.1", "tcp:10994"'))
"""Endpoint strings are bound when the service starts: by a reactor in memory, then, to nothing."""


class ThreadlessReactor(MemoryReactorClock):
    """A reactor in memory that notes that it was stopped, and calls at once what threads ask."""

    stops = 0

    def callFromThread(self, function: Callable[..., object], *words: object) -> None:
        """Call it."""
        function(*words)

    def stop(self) -> None:
        """Count it."""
        self.stops += 1


class OptionsTests(ConfigTestCase):
    """The command line."""

    def setUp(self) -> None:
        """Start without the variable."""
        super().setUp()
        self.patch(os, "environ", {})

    def parse(self, *words: str) -> Options:
        """Read a command line."""
        options = Options()
        options.parseOptions(words)
        return options

    def test_fileByOption(self) -> None:
        """Long and short, and it beats the environment."""
        os.environ[CONFIG_VARIABLE] = "other.toml"
        self.assertEqual(self.parse("--config", "a.toml")["config"], "a.toml")
        self.assertEqual(self.parse("-c", "a.toml")["config"], "a.toml")

    def test_fileByEnvironment(self) -> None:
        """`PROXY_CONFIG` names the file where no option does."""
        os.environ[CONFIG_VARIABLE] = "other.toml"
        self.assertEqual(self.parse()["config"], "other.toml")

    def test_demoNeedsNoFile(self) -> None:
        """It brings its own, even where the environment names one."""
        self.assertIsNone(self.parse("--demo")["config"])
        os.environ[CONFIG_VARIABLE] = "other.toml"
        self.assertIsNone(self.parse("--demo")["config"])

    def test_whatIsMissingOrTooMuchIsSaid(self) -> None:
        """Neither a file nor the demonstration, or both, ends in a hint."""
        both = ("--demo", "--config", "a.toml")
        for words, said in {(): "or set PROXY_CONFIG", both: "not both"}.items():
            error = self.assertRaises(usage.UsageError, self.parse, *words)
            self.assertIn("--config FILE", str(error))
            self.assertIn(said, str(error))

    def test_logFormat(self) -> None:
        """Text, unless JSON is asked for; nothing else is one."""
        self.assertEqual(self.parse("--demo")["log-format"], "text")
        self.assertEqual(self.parse("--demo", "--log-format", "json")["log-format"], "json")
        words = ("--demo", "--log-format=xml")
        self.assertIn("json", str(self.assertRaises(usage.UsageError, self.parse, *words)))

    def test_ownLoggerAndJSONExcludeEachOther(self) -> None:
        """Twistd takes its `--logger` and would ask for no other: that is said."""
        options = Options()
        options.parent = {"logger": "some.place"}  # type: ignore[assignment]
        options.parseOptions(["--demo"])
        self.assertRaises(
            usage.UsageError, options.parseOptions, ["--demo", "--log-format", "json"]
        )

    def test_pluginNamesThisModule(self) -> None:
        """twistd finds us by one ServiceMaker, whose parts are here."""
        maker = namedAny("twisted.plugins.mailproxy_plugin.mailproxy")
        verifyObject(IServiceMaker, maker)
        self.assertTrue(IPlugin.providedBy(maker))
        self.assertEqual(maker.tapname, "mailproxy")
        self.assertIs(maker.options, Options)
        self.assertIs(maker.makeService, makeService)


class TapCase(ConfigTestCase):
    """Services built on a reactor in memory."""

    def setUp(self) -> None:
        """Put the reactor in the place of the real one."""
        super().setUp()
        self.reactor = ThreadlessReactor()
        self.limits: list[tuple[int, tuple[int, int]]] = []
        self.patch(tap, "globalReactor", self.reactor)
        self.patch(tap, "workerCount", lambda config: 1)
        self.patch(resource, "setrlimit", lambda *words: self.limits.append(words))
        self.patch(Logger, "level", Logger.level)
        self.patch(os, "environ", {})

    def build(self, text: str, *words: str) -> MultiService:
        """Build the service that a configuration describes."""
        options = Options()
        options.parseOptions(["--config", str(self.write("mailproxy.toml", text)), *words])
        service = makeService(options)
        assert isinstance(service, MultiService)
        return service

    def refused(self, text: str) -> list[str]:
        """The lines that the process ends with; nothing may have been opened by then."""
        error = self.assertRaises(SystemExit, self.build, text)
        self.assertTrue(error.__suppress_context__)
        self.assertEqual((self.reactor.tcpServers, self.reactor.whenRunningHooks), ([], []))
        assert isinstance(error.code, str)
        return error.code.split("\n")


class RefusalTests(TapCase):
    """What refuses to start."""

    def test_everyProblemHasItsLine(self) -> None:
        """All problems at once, each with its key; exit status 1, no traceback."""
        lines = self.refused(
            changed(('"127.0.0.1:993"', '"127.0.0.1:99300"'), ('"old"\n\n[map', '"gone"\n\n[map'))
        )
        self.assertEqual(len(lines), 2, lines)
        self.assertTrue(lines[0].startswith("listener.imaps.bind"), lines)
        self.assertTrue(lines[1].startswith("routing.default_destination"), lines)

    def test_missingFile(self) -> None:
        """A configuration that is not there is a plain line too."""
        options = Options()
        options.parseOptions(["--config", str(self.directory / "none.toml")])
        error = self.assertRaises(SystemExit, makeService, options)
        self.assertIn("none.toml", str(error.code))
        self.assertNotIn("Traceback", str(error.code))

    def test_aProblemIsOneLine(self) -> None:
        """Whatever the name of the file."""
        options = Options()
        options.parseOptions(["--config", str(self.directory / "a\nb\x1b")])
        error = self.assertRaises(SystemExit, makeService, options)
        self.assertTrue(str(error.code).isprintable(), error.code)

    def test_badMappingFile(self) -> None:
        """A mapping to nowhere is named with file and line."""
        self.write("accounts", b"anna old\nben nowhere\n")
        (line,) = self.refused(ENDPOINT)
        self.assertIn("accounts:2", line)

    def test_rootThatWillNotDo(self) -> None:
        """Twistd changes it after us: what is missing in it is said before."""
        options = Options()
        options.parent = {"chroot": str(self.directory)}  # type: ignore[assignment]
        options.parseOptions(["--config", str(self.write("mailproxy.toml", MINIMAL))])
        error = self.assertRaises(SystemExit, makeService, options)
        self.assertIn(f"--chroot: {self.directory} has no dev/null", str(error.code))

    def test_missingDriverRefusesToStart(self) -> None:
        """A line that says what to install."""

        def missing(name: str) -> None:
            raise ImportError(name)

        self.patch(drivers, "import_module", missing)
        text = changed(
            ('source = "file"\n', 'source = "sql"\nsql.url = "mysql://h/d"\nsql.query = "?"\n'),
            base=ENDPOINT,
        )
        (line,) = self.refused(text)
        self.assertIn("install mailproxy[mysql]", line)

    def test_missingPluginRefusesToStart(self) -> None:
        """A line with its name."""
        (line,) = self.refused(
            changed(('source = "file"', 'source = "plugin:none"'), base=ENDPOINT)
        )
        self.assertTrue(line.startswith('mapping.source: there is no mapping plugin "none"'), line)


class BuildTests(TapCase):
    """What is built."""

    def test_listensAtEveryPlace(self) -> None:
        """One door per bind, all with the listener's one factory; they close when we stop."""
        service = self.build(ENDPOINT)
        self.assertEqual(self.reactor.tcpServers, [])
        service.privilegedStartService()
        service.startService()
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [10993, 10994])
        factories = {server[1] for server in self.reactor.tcpServers}
        self.assertEqual(len(factories), 1)
        self.assertIsInstance(factories.pop(), IMAPServerFactory)
        stopped = service.stopService()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_managementHasItsDoor(self) -> None:
        """With `[admin]` the management API listens too."""
        admin = f'\n[admin]\nbind = "tcp:18443"\ntls = "implicit"\nbearer_token = "{TOKEN}"\n'
        service = self.build(ENDPOINT + admin)
        service.privilegedStartService()
        ports = {server[0]: server[1] for server in self.reactor.tcpServers}
        self.assertIn(18443, ports)
        self.assertNotIsInstance(ports[18443], IMAPServerFactory)

    def test_noPasswordReachesACoreFile(self) -> None:
        """Core files are off before anything else."""
        self.build(ENDPOINT)
        self.assertEqual(self.limits[0], (resource.RLIMIT_CORE, (0, 0)))

    def test_descriptorsAreNotHeldBack(self) -> None:
        """What the process may open, it does not forbid itself."""
        self.build(ENDPOINT)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertEqual(self.limits[1], (resource.RLIMIT_NOFILE, (most, most)))

    def test_logLevel(self) -> None:
        """`server.log_level`, or `PROXY_LOG` in its stead."""
        self.build(ENDPOINT + '[server]\nlog_level = "error"\n')
        self.assertIs(Logger.level, LogLevel.error)
        os.environ["PROXY_LOG"] = "debug"
        self.build(ENDPOINT)
        self.assertIs(Logger.level, LogLevel.debug)

    def test_logsInTheFormatThatIsAskedFor(self) -> None:
        """The application that we join is told so before it logs."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        for words, line in (((), asText), (("--log-format", "json"), asJSON)):
            application = Application("mailproxy")
            self.build(ENDPOINT, *words).setServiceParent(application)
            observer = application.getComponent(ILogObserver, None)
            assert isinstance(observer, FileLogObserver)
            self.assertIs(observer.formatEvent, line)
            self.assertEqual(len(list(IServiceCollection(application))), 1)
        self.build(ENDPOINT, "--log-format", "json").setServiceParent(MultiService())

    def test_managerIsTold(self) -> None:
        """With `NOTIFY_SOCKET`: that we are ready, when the reactor runs, and that we stop."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = f"{folder.name}/notify"
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.addCleanup(manager.close)
        manager.bind(path)
        os.environ["NOTIFY_SOCKET"] = path
        service = self.build(ENDPOINT)
        service.privilegedStartService()
        service.startService()
        self.assertRaises(BlockingIOError, manager.recv, 100)
        self.patch(signal, "signal", lambda *words: None)
        for function, words, named in self.reactor.whenRunningHooks:
            function(*words, **named)
        self.assertEqual(manager.recv(100), b"READY=1")
        self.successResultOf(service.stopService())
        self.assertEqual(manager.recv(100), b"STOPPING=1")

    def test_warningsAreLoggedOnceWeRun(self) -> None:
        """What somebody should look at is said in the log, not before there is one."""
        self.build(
            changed(('host = "old.', 'tls_allow_invalid_certs = true\nhost = "old.'), base=ENDPOINT)
        )
        events: list[Any] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.patch(signal, "signal", lambda *words: None)
        for function, words, named in self.reactor.whenRunningHooks:
            function(*words, **named)
        warned = [formatEvent(each) for each in events if each["log_level"] is LogLevel.warn]
        self.assertEqual(len(warned), 1, warned)
        self.assertIn("destination.old.tls_allow_invalid_certs", warned[0])
        self.assertIn(
            "listener imaps: imap at tcp:10993:interface=127.0.0.1, tcp:10994",
            [formatEvent(each) for each in events],
        )

    def test_signalsStopInGoodOrder(self) -> None:
        """The first SIGTERM or SIGINT stops the reactor, the second one ends the process."""
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        self.build(ENDPOINT)
        for function, words, named in self.reactor.whenRunningHooks:
            function(*words, **named)
        self.assertEqual(set(handlers), {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        said: list[Any] = []
        observer = cast(ILogObserver, said.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        (text,) = map(formatEvent, said)
        self.assertIn("SIGTERM: shutting down; sessions have 30 s to end, a second signal", text)
        self.assertEqual(self.reactor.stops, 1)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.assertIs(handlers[number], signal.SIG_DFL)


class SignalledReloadTests(TapCase):
    """SIGHUP."""

    def setUp(self) -> None:
        """Run a proxy whose thread works at once."""
        super().setUp()
        self.patch(tap, "makeThread", lambda reactor: atOnce)
        self.handlers: dict[int, Any] = {}
        self.patch(signal, "signal", self.handlers.__setitem__)
        self.build(ENDPOINT)
        for function, words, named in self.reactor.whenRunningHooks:
            function(*words, **named)
        self.events: list[Any] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def hangUp(self, text: str) -> list[str]:
        """Change the file and send the signal; the warnings that come of it."""
        self.write("mailproxy.toml", text)
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        return [formatEvent(each) for each in self.events if each["log_level"] is LogLevel.warn]

    def test_fileIsTakenIntoUse(self) -> None:
        """As it is now, each time."""
        for level in (LogLevel.error, LogLevel.debug):
            self.hangUp(f'{ENDPOINT}[server]\nlog_level = "{level.name}"\n')
            self.assertIs(Logger.level, level)

    def test_everyMistakeIsLogged(self) -> None:
        """One line each; nothing is changed, and the next signal is heard."""
        bad = ENDPOINT + '[server]\nlog_level = "error"\nthreads = -1\nbridge_idle = "soon"\n'
        warned = self.hangUp(bad)
        self.assertEqual(len(warned), 2, warned)
        self.assertTrue(warned[0].startswith("not reloaded: server.threads: "), warned)
        self.assertTrue(warned[1].startswith("not reloaded: server.bridge_idle: "), warned)
        self.assertIs(Logger.level, LogLevel.info)
        self.hangUp(ENDPOINT + '[server]\nlog_level = "error"\n')
        self.assertIs(Logger.level, LogLevel.error)

    def test_bugIsLogged(self) -> None:
        """A mistake of ours ends neither the process nor the silence about it."""
        self.patch(tap, "load", lambda *words: 1 // 0)
        self.assertEqual(self.hangUp(ENDPOINT), [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class DemoTests(TapCase):
    """`--demo`."""

    def test_serversAndProxyTogether(self) -> None:
        """The mail servers run beside a proxy with the written configuration, then we say so."""
        path = self.write("demo.toml", ENDPOINT)
        servers, inner = MultiService(), Service()
        inner.setServiceParent(servers)
        self.patch(demo, "prepareTemporary", lambda reactor: DemoSetup(path, servers, "try this"))
        options = Options()
        options.parseOptions(["--demo"])
        service = makeService(options)
        assert isinstance(service, MultiService)
        service.privilegedStartService()
        service.startService()
        self.assertTrue(inner.running)
        self.assertEqual(len(self.reactor.tcpServers), 2)
        self.patch(signal, "signal", lambda *words: None)
        out = io.StringIO()
        (hook,) = [each for each in self.reactor.whenRunningHooks if each[0] is print]
        hook[0](*hook[1], **{**hook[2], "file": out})
        self.assertEqual(out.getvalue(), "try this\n")
        self.assertIs(hook[2]["file"], sys.__stdout__)
        self.successResultOf(service.stopService())


class MinimalTests(ConfigTestCase):
    """The configuration that the tests above change."""

    def test_isSound(self) -> None:
        """It loads, as it is and with endpoint strings."""
        self.load(MINIMAL)
        self.load(ENDPOINT)
