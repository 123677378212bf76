"""The house stands as it was designed, and the rules that say so can fail."""

from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

import mailproxy
from tests import architecture
from tests.architecture import House

SOURCES = Path(mailproxy.__file__).parent
TESTS = Path(__file__).parent

FLOORS = {
    "": -1,
    "errors": -1,
    "logs": -1,
    "logformat": 1,
    "config": 0,
    "config.*": 0,
    "origin": 0,
    "sasl": 0,
    "identity": 0,
    "proxyheader": 0,
    "waiting": 0,
    "mapping": 1,
    "mapping.*": 1,
    "health": 1,
    "registry": 1,
    "metrics": 1,
    "openssl": 0,
    "eventloop": 1,
    "garbage": 0,
    "idle": 1,
    "linger": 0,
    "transport": 1,
    "transport.*": 1,
    "tls": 1,
    "tls.*": 1,
    "stream": 1,
    "sockets": 1,
    "notify": 1,
    "seat": 2,
    "routing": 2,
    "dial": 2,
    "drain": 2,
    "bridge": 2,
    "protocols": 2,
    "protocols.*": 2,
    "http.server": 3,
    "http.upstream": 3,
    "http.intake": 3,
    "http.delivery": 3,
    "http.reply": 3,
    "http.exchange": 3,
    "http.connection": 3,
    "http": 2,
    "http.*": 2,
    "resources": 3,
    "placement": 3,
    "session": 3,
    "passage": 3,
    "listener": 4,
    "control": 4,
    "proxy": 4,
    "reload": 4,
    "adoption": 4,
    "management": 5,
    "management.*": 5,
    "workers": 5,
    "workers.*": 5,
    "served": 5,
    "sources": 5,
    "core": 6,
    "worker": 6,
    "tap": 6,
    "cli": 6,
    "cli.*": 6,
    "demo": 6,
    "demo.*": 6,
}
"""Each module's floor. `errors`, `logs` and the package's own `__init__` lie below all."""

SIDEWAYS = {
    ("stream", "transport"),  # what a stream may be carried by
    ("sockets", "transport"),  # what a listening socket makes
    ("identity", "sasl"),  # what a login says about who it is
    ("proxyheader", "origin"),  # what a header says about who the client is
    ("dial", "protocols.client"),  # what a dialled stream is
    ("adoption", "proxy"),  # what adopts
    ("reload", "adoption"),  # who takes what has been read into use
    ("session", "resources"),  # what a session of any kind is given
    ("placement", "resources"),
    ("http.connection", "resources"),
    ("http.exchange", "resources"),
    ("http.delivery", "resources"),
    ("session", "placement"),  # where it belongs
    ("passage", "placement"),
    ("http.exchange", "placement"),
    ("passage", "session"),  # a kind of session
    ("proxy", "listener"),  # what a proxy owns
    ("control", "proxy"),  # LocalControl asks one Proxy
    ("workers.worker", "sources"),  # what a worker is built of
    ("tap", "core"),  # what serves
    ("tap", "demo"),  # twistd's --demo
}
"""Imports between modules of one floor, each with its reason."""

PURE = (
    "errors",
    "config*",
    "origin",
    "sasl",
    "identity",
    "proxyheader",
    "protocols.grammar",
    "health",
)
NAMES_REACTOR = ("tap", "worker", "cli", "cli.local")
PROTOCOL_WORDS = {"imap", "pop3", "managesieve", "sieve", "submission", "smtp", "lmtp", "http"}
STORE_WORDS = {"redis", "sql", "sqlite", "postgres", "postgresql", "mysql", "adbapi", "file"}
FUNCTION_LINES, FILE_LINES = 40, 400


class ProjectTests(SynchronousTestCase):
    """mailproxy itself."""

    def setUp(self) -> None:
        """Read the package."""
        self.house = House.read(SOURCES)

    def assertNone(self, violations: list[str]) -> None:
        """Fail with all violations, one per line."""
        if violations:
            self.fail("\n".join(["", *violations]))

    def test_importsGoDown(self) -> None:
        """Each module has a floor and imports only from the floors below its own."""
        self.assertNone(architecture.floorViolations(self.house, FLOORS, SIDEWAYS))

    def test_noModuleImportsItself(self) -> None:
        """There are no import cycles, imports for types included."""
        self.assertNone(architecture.cycleViolations(self.house))

    def test_everyModuleHasItsTwin(self) -> None:
        """mailproxy/x/y.py is tested by tests/x/test_y.py."""
        self.assertNone(architecture.twinViolations(self.house, TESTS))

    def test_theGlobalReactorIsNamedAtTheTopOnly(self) -> None:
        """Everything below is handed its reactor or clock."""
        self.assertNone(architecture.globalReactorViolations(self.house, NAMES_REACTOR))

    def test_theGroundKnowsNoNetwork(self) -> None:
        """Floor 0, the grammar and health are pure: no reactor, no transport, no socket."""
        self.assertNone(architecture.purityViolations(self.house, PURE))

    def test_theSharedConversationNamesNoProtocol(self) -> None:
        """What all protocols share is worded by none of them."""
        for module in ("protocols.base", "protocols.server", "protocols.client"):
            self.assertNone(architecture.wordViolations(self.house, module, PROTOCOL_WORDS))

    def test_theMappingInterfacesNameNoStore(self) -> None:
        """What all mapping sources promise is told without any of them."""
        self.assertNone(architecture.wordViolations(self.house, "mapping.interfaces", STORE_WORDS))

    def test_functionsAndFilesAreShort(self) -> None:
        """A function fits one screen, and a file is read in one sitting."""
        self.assertNone(architecture.sizeViolations(self.house, FUNCTION_LINES, FILE_LINES))


class RulesTests(SynchronousTestCase):
    """Each rule finds its violation in a small made-up house."""

    def house(self, **sources: str) -> House:
        """Build a package `house`; `__` in a keyword is a folder, `mail__init` its `__init__`."""
        self.directory = Path(self.mktemp()) / "house"
        for name, source in {"init": "", **sources}.items():
            *folders, last = name.split("__")
            path = self.directory.joinpath(*folders, f"{last}.py".replace("init.py", "__init__.py"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(source))
        return House.read(self.directory)

    def floors(self, house: House, *sideways: tuple[str, str]) -> list[str]:
        """Check a house of three floors."""
        floors = {"": -1, "low": 0, "middle": 1, "other": 1, "mail": 1, "mail.*": 1, "high": 2}
        return architecture.floorViolations(house, floors, sideways)

    def test_importsMayGoDown(self) -> None:
        """Imports from floors below are no violation, nor are those of other packages."""
        house = self.house(
            low="import os", middle="from house.low import x", high="import house.low"
        )
        self.assertEqual(self.floors(house), [])

    def test_anImportThatGoesUpIsFound(self) -> None:
        """However it is spelled, and wherever it stands."""
        spellings = (
            "import house.high",
            "from house import high",
            "from house.high import thing",
            "from . import high",
            "from .high import thing",
            "def f():\n    from house import high",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house import high",
        )
        for source in spellings:
            house = self.house(low=source, high="")
            self.assertEqual(self.floors(house), ["low (floor 0) imports high (floor 2)"], source)

    def test_anImportFromASubPackageIsMadeWhole(self) -> None:
        """Two dots lead out of a sub-package, from a module and from its `__init__`."""
        for name in ("mail__init", "mail__x"):
            house = self.house(**{"mail__init": "", name: "from ..high import thing"}, high="")
            (violation,) = self.floors(house)
            self.assertIn("imports high", violation)

    def test_sidewaysNeedsAReason(self) -> None:
        """The same floor is no floor below, unless the pair is named; the way back is not."""
        house = self.house(middle="import house.other", other="")
        self.assertEqual(self.floors(house), ["middle (floor 1) imports other (floor 1)"])
        self.assertEqual(self.floors(house, ("middle", "other")), [])
        self.assertNotEqual(self.floors(house, ("other", "middle")), [])

    def test_oneSubPackageIsOneRoom(self) -> None:
        """Modules of one sub-package may import each other."""
        house = self.house(mail__init="from .x import X", mail__x="from .y import Y", mail__y="")
        self.assertEqual(self.floors(house), [])

    def test_aModuleWithoutAFloorIsFound(self) -> None:
        """A new module needs its place."""
        self.assertEqual(self.floors(self.house(attic="")), ["attic: has no floor"])

    def test_aCycleIsFound(self) -> None:
        """Each module of a ring is named, one that only looks at it is not."""
        house = self.house(
            a="import house.b", b="import house.c", c="import house.a", d="import house.a"
        )
        found = architecture.cycleViolations(house)
        self.assertEqual([line.partition(":")[0] for line in found], ["a", "b", "c"])
        self.assertIn("b, c", found[0])

    def test_aTypeImportClosesACycle(self) -> None:
        """An import under TYPE_CHECKING counts."""
        house = self.house(a="import house.b", b="if TYPE_CHECKING:\n    from house.a import A")
        self.assertEqual(len(architecture.cycleViolations(house)), 2)

    def test_aMissingTwinIsFound(self) -> None:
        """A module, or an `__init__` with code in it, needs its test; a mere re-export does not."""
        house = self.house(
            a="", mail__init="from .x import X", mail__x="", box__init="class B: ..."
        )
        tests = self.directory.parent / "tests"
        (tests / "mail").mkdir(parents=True)
        (tests / "test_a.py").touch()
        (tests / "mail" / "test_y.py").touch()
        found = architecture.twinViolations(house, tests)
        expected = ["box: has no tests/test_box.py", "mail.x: has no tests/mail/test_x.py"]
        self.assertEqual(found, expected)

    def test_theGlobalReactorIsFound(self) -> None:
        """However it is reached, in a function too; whoever is allowed to is left alone."""
        spellings = (
            "from twisted.internet import reactor",
            "def f():\n    from twisted.internet import reactor as r",
            "import twisted.internet.reactor",
            "import twisted.internet\ntwisted.internet.reactor.run()",
        )
        for source in spellings:
            house = self.house(a=source, tap=source)
            found = architecture.globalReactorViolations(house, ["tap"])
            self.assertEqual(found, ["a: imports the global reactor"], source)

    def test_aClockIsNotTheReactor(self) -> None:
        """Reactor interfaces and parameters of that name are welcome."""
        source = "from twisted.internet.interfaces import IReactorTime\ndef f(reactor): ..."
        house = self.house(a=source)
        self.assertEqual(architecture.globalReactorViolations(house, []), [])
        self.assertEqual(architecture.purityViolations(house, ["*"]), [])

    def test_aNetworkImportIsFound(self) -> None:
        """Sockets, TLS, transports and tasks are no business of a pure module."""
        spellings = (
            "import socket",
            "from ssl import SSLContext",
            "from OpenSSL import SSL",
            "from twisted.internet import task",
            "from twisted.internet.protocol import Protocol",
            "from twisted.application.service import Service",
        )
        for source in spellings:
            house = self.house(a=source, b=source)
            self.assertEqual(len(architecture.purityViolations(house, ["a"])), 1, source)

    def test_aForbiddenWordIsFound(self) -> None:
        """In names, imports, parameters and constants, in any spelling."""
        spellings = (
            "imap = 1",
            "class IMAPServer: ...",
            "def parseImapLine(): ...",
            "def f(imap_line): ...",
            "x.imap",
            "y = 'an IMAP line'",
            "y = b'IMAP4rev1 imap'",
            "from house import imap",
            "f(imap=1)",
        )
        for source in spellings:
            house = self.house(a=source)
            self.assertEqual(architecture.wordViolations(house, "a", {"imap"}), ["a: names imap"])

    def test_proseMayUseTheWord(self) -> None:
        """Docstrings and comments may; a longer word that only contains it may, too."""
        source = '"""As in IMAP."""\ndef f():\n    """IMAP."""\n    # imap\n    return mimapped'
        house = self.house(a=source)
        self.assertEqual(architecture.wordViolations(house, "a", {"imap"}), [])

    def test_aLongFunctionIsFound(self) -> None:
        """The limit is the last length that is allowed; nested and asynchronous ones count."""
        long = "class C:\n    async def f(self):\n" + "        pass\n" * 4
        house = self.house(a=long)
        self.assertEqual(architecture.sizeViolations(house, 5, 100), [])
        self.assertEqual(architecture.sizeViolations(house, 4, 100), ["a: f has 5 lines"])

    def test_aLongFileIsFound(self) -> None:
        """The limit is the last length that is allowed."""
        house = self.house(a="pass\n" * 5)
        self.assertEqual(architecture.sizeViolations(house, 5, 5), [])
        self.assertEqual(architecture.sizeViolations(house, 5, 4), ["a: has 5 lines"])
