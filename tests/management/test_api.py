"""The calls: what each asks of the control, and what it answers."""

import json
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailproxy.control import IControl
from mailproxy.errors import (
    ConfigError,
    InvalidIdentifier,
    MappingError,
    ReadOnlyMapping,
    Unanswered,
    UnknownDestination,
)
from mailproxy.management import Guard, ManagementAPI
from mailproxy.management.api import CALLS
from mailproxy.management.openapi import document
from mailproxy.metrics import CONTENT_TYPE
from tests.management.support import BEARER, TOKEN, FakeControl, Reply

FACTS = {"identifier": "größe", "cached": True}

# call, query, what the control answers, what it is asked, the text of the answer
DONE: tuple[tuple[str, str, Any, tuple[Any, ...], object], ...] = (
    ("GET /stats", "", FACTS, ("stats",), FACTS),
    ("GET /metrics", "", "mailproxy_x 1\n", ("metrics",), "mailproxy_x 1\n"),
    ("GET /destinations", "", [FACTS], ("destinations",), [FACTS]),
    ("POST /destinations/reset", "destination=new", None, ("resetDestination", "new"), "reset\n"),
    ("GET /mappings", "identifier=ann%2Bx", FACTS, ("mapping", "ann+x"), FACTS),
    (
        "PUT /mappings",
        "identifier=ann&destination=new",
        None,
        ("setMapping", "ann", "new"),
        "mapped\n",
    ),
    ("DELETE /mappings", "identifier=ann", True, ("removeMapping", "ann"), "removed\n"),
    ("DELETE /mappings", "identifier=ann", False, ("removeMapping", "ann"), "absent\n"),
    (
        "POST /config/reload",
        "",
        ["admin", "server.threads"],
        ("reload",),
        {"reloaded": True, "note": "needs a restart: admin, server.threads"},
    ),
    ("POST /mappings/reload", "", None, ("reloadMappings",), "reloaded\n"),
    ("POST /cache/invalidate", "", None, ("invalidate", None), "invalidated\n"),
    ("POST /cache/invalidate", "identifier=ann", None, ("invalidate", "ann"), "invalidated\n"),
    ("GET /connections", "", [], ("connections", None, None, None), []),
    (
        "GET /connections",
        "protocol=imap&destination=new&identifier=%C3%A4",
        [FACTS],
        ("connections", "ä", "new", "imap"),
        [FACTS],
    ),
    ("POST /connections/kick", "identifier=ann", 3, ("kick", "ann"), "kicked 3\n"),
    ("POST /connections/kick", "identifier=ann", 0, ("kick", "ann"), "kicked 0\n"),
    (
        "POST /connections/delay",
        "seconds=120&identifier=ann",
        None,
        ("delay", "ann", 120),
        "delayed 120\n",
    ),
    (
        "POST /connections/delay",
        "identifier=ann&seconds=0",
        None,
        ("delay", "ann", 0),
        "delayed 0\n",
    ),
)

INVALID = InvalidIdentifier("holds a control character, space or double quote")
UNDECLARED = "destination: not declared in the configuration\n"
WRITES = "identifier=ann&destination=new"
ANN = r"a~[0-9a-f]{8}"

# call, query, how the control fails, the status and the text of the answer
FAILED: tuple[tuple[str, str, Exception, int, str], ...] = (
    ("GET /mappings", "identifier=a", INVALID, 400, f"identifier: {INVALID}\n"),
    ("PUT /mappings", WRITES, INVALID, 400, f"identifier: {INVALID}\n"),
    ("DELETE /mappings", "identifier=a", INVALID, 400, f"identifier: {INVALID}\n"),
    ("POST /cache/invalidate", "identifier=a", INVALID, 400, f"identifier: {INVALID}\n"),
    ("GET /connections", "identifier=a", INVALID, 400, f"identifier: {INVALID}\n"),
    ("POST /connections/kick", "identifier=a", INVALID, 400, f"identifier: {INVALID}\n"),
    ("POST /connections/delay", "identifier=a&seconds=1", INVALID, 400, f"identifier: {INVALID}\n"),
    ("PUT /mappings", WRITES, UnknownDestination("new"), 400, UNDECLARED),
    ("POST /destinations/reset", "destination=x", UnknownDestination("x"), 404, UNDECLARED),
    ("PUT /mappings", WRITES, ReadOnlyMapping(), 501, "the mapping store takes no writes\n"),
    ("DELETE /mappings", "identifier=a", ReadOnlyMapping(), 501, "the mapping store takes no"),
    ("PUT /mappings", WRITES, MappingError("disk full"), 500, "store failed: disk full\n"),
    ("DELETE /mappings", "identifier=a", MappingError("gone"), 500, "store failed: gone\n"),
    ("GET /mappings", "identifier=a", MappingError("gone"), 503, "could not tell: gone\n"),
    ("GET /stats", "", Unanswered("worker 2 does not answer"), 503, "worker 2 does not answer\n"),
    ("POST /mappings/reload", "", ConfigError(["m:3: bad", "m:9: worse"]), 400, "m:3: bad\nm:9: "),
)


class APICase(SynchronousTestCase):
    """The API over a fake control, asked in memory."""

    def setUp(self) -> None:
        """Start with nobody locked out."""
        self.control = FakeControl()
        self.guard = Guard(TOKEN, 3, 60.0, Clock())
        self.api = ManagementAPI(self.control, self.guard)
        self.treq: Any = StubTreq(self.api.resource())

    def start(self, call: str, query: str = "", **fields: str) -> Deferred[Any]:
        """Make a call; without the right token if `Authorization` is given and is another."""
        method, path = call.split(" ")
        fields = {"Authorization": BEARER, **fields}
        headers = {name: value for name, value in fields.items() if value}
        url = f"https://proxy.example{path}" + (f"?{query}" if query else "")
        answer: Deferred[Any] = self.treq.request(method, url, headers=headers)
        return answer

    def ask(self, call: str, query: str = "", **fields: str) -> Reply:
        """Make a call that is answered at once."""
        response = self.successResultOf(self.start(call, query, **fields))
        body = self.successResultOf(self.treq.content(response))
        raw = response.headers.getAllRawHeaders()
        headers = {name.decode().lower(): b", ".join(values).decode() for name, values in raw}
        return Reply(response.code, headers, body)

    def assertRefused(self, reply: Reply, status: int, text: str) -> None:
        """Hold a reply against the status and the words that it must have."""
        self.assertEqual((reply.status, reply.headers["content-type"]), (status, TEXT), reply)
        self.assertIn(text, reply.text)
        self.assertTrue(reply.text.endswith("\n"))
        self.assertEqual(self.control.asked, [])


TEXT = "text/plain; charset=utf-8"


class CallTests(APICase):
    """Every call of the table."""

    def test_theFakeIsAControl(self) -> None:
        """It provides what it claims, or these tests show nothing."""
        verifyObject(IControl, self.control)

    def test_everyCallIsTested(self) -> None:
        """Each call that asks the control stands in the table of answers."""
        calls = {f"{call.method} {call.path}" for call in CALLS}
        self.assertEqual(calls, {"GET /healthz", "GET /openapi.json", *(call for call, *_ in DONE)})

    def test_callsAskTheControl(self) -> None:
        """The decoded parameters reach the control; its answer comes back as text or JSON."""
        for call, query, result, asked, expected in DONE:
            self.control.asked, self.control.result = [], result
            reply = self.ask(call, query)
            self.assertEqual((reply.status, self.control.asked), (200, [asked]), call)
            if isinstance(expected, str):
                kind = CONTENT_TYPE if call == "GET /metrics" else TEXT
                self.assertEqual((reply.text, reply.headers["content-type"]), (expected, kind))
            else:
                self.assertEqual(json.loads(reply.body), expected)
                self.assertEqual(reply.headers["content-type"], "application/json")

    def test_theDescriptionIsServed(self) -> None:
        """To operators alone, and without a question to the control."""
        reply = self.ask("GET /openapi.json")
        self.assertEqual(reply.headers["content-type"], "application/json")
        self.assertEqual(json.loads(reply.body), document(CALLS))
        self.assertEqual(self.control.asked, [])
        self.assertEqual(self.ask("GET /openapi.json", Authorization="").status, 401)

    def test_failuresHaveTheirStatus(self) -> None:
        """Each way in which the control fails has its status, and a text that says what."""
        for call, query, failure, status, text in FAILED:
            self.control.result = failure
            reply = self.ask(call, query)
            self.assertEqual(reply.status, status, (call, failure))
            self.assertIn(text, reply.text)
            self.assertEqual(reply.headers["content-type"], TEXT)

    def test_whatAChangeNamesIsLogged(self) -> None:
        """And nothing else: a hold and its end differ in their seconds."""
        for call, query, said in (
            ("POST /connections/delay", "identifier=ann&seconds=60", rf"delay {ANN} 60 s: 200"),
            ("POST /connections/delay", "identifier=ann&seconds=0", rf"delay {ANN} 0 s: 200"),
            ("PUT /mappings", WRITES, rf"mappings {ANN} new: 200"),
            ("POST /destinations/reset", "destination=new", "reset new: 200"),
            ("POST /mappings/reload", "", "reload: 200"),
            ("PUT /mappings", "identifier=ann&destination={x}%0A", rf"{ANN} {{x}}\\n: 200"),
        ):
            with capturedLogs() as events:
                self.ask(call, query)
            [line] = map(formatEvent, events)
            self.assertRegex(line, rf"\Amanagement: \S+ (POST|PUT) /.*{said}\Z")

    def test_ourMistakesAreNotShown(self) -> None:
        """Any other exception is logged; no word of it, no traceback is in the answer."""
        for call, query, *_ in DONE:
            self.control.result = ZeroDivisionError("secret detail")
            reply = self.ask(call, query)
            self.assertEqual((reply.status, reply.text), (500, "internal error\n"), call)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_anAnswerThatIsNoJSONIsOurMistake(self) -> None:
        """Not that of the caller, who sees no more of it than of any other."""
        self.control.result = {"x": object()}
        self.assertEqual(self.ask("GET /stats").text, "internal error\n")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_aSlowControlIsWaitedFor(self) -> None:
        """The answer comes when the control's does."""
        self.control.result = Deferred()
        waiting = self.start("GET /stats")
        self.assertNoResult(waiting)
        self.control.result.callback({})
        self.treq.flush()
        self.assertEqual(self.successResultOf(waiting).code, 200)

    def test_aClientThatLeavesDoesNotStopAWrite(self) -> None:
        """A write goes on to its end, or the store would know what the cache does not."""
        for end in ("callback", "errback"):
            cancelled: list[object] = []
            writing: Deferred[None] = Deferred(cancelled.append)
            self.control.result = writing
            waiting = self.start("PUT /mappings", WRITES)
            self.assertNoResult(waiting)
            waiting.cancel()
            self.treq.flush()
            self.failureResultOf(waiting)
            self.assertEqual(cancelled, [])
            getattr(writing, end)(MappingError("late"))
        self.assertEqual(self.flushLoggedErrors(), [])


class RoutingTests(APICase):
    """Paths, methods and parameters."""

    def test_aTrailingSlashIsIgnored(self) -> None:
        """For every call."""
        for call, query, result, asked, _ in DONE:
            self.control.asked, self.control.result = [], result
            self.assertEqual(self.ask(f"{call}/", query).status, 200, call)
            self.assertEqual(self.control.asked, [asked])

    def test_unknownPathsAreNotFound(self) -> None:
        """Near misses too; none is a redirection."""
        near = "/ /x /Stats /stats/x /stats// //stats /stats%00 /mapping /mappings/x /mappings//x"
        far = "/config/reloads /metric /openapi /stats/.. /healthz/x /* /%2e /%ff"
        for path in (*near.split(), *far.split()):
            self.assertRefused(self.ask(f"GET {path}"), 404, "not found")
        self.assertRefused(self.ask("POST /mappings//reload"), 404, "not found")

    def test_wrongMethodsAreTold(self) -> None:
        """405 names what is allowed, HEAD where GET is."""
        allowed: dict[str, set[str]] = {}
        for call in CALLS:
            names = {call.method} | ({"HEAD"} if call.method == "GET" else set())
            allowed.setdefault(call.path, set()).update(names)
        for path, methods in allowed.items():
            for method in {"GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "FOO"} - methods:
                reply = self.ask(f"{method} {path}")
                self.assertRefused(reply, 405, "method not allowed")
                self.assertEqual(reply.headers["allow"], ", ".join(sorted(methods)))

    def test_headIsGetWithoutABody(self) -> None:
        """Whatever the status."""
        self.control.result = FACTS
        head = self.ask("HEAD /stats")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["content-type"], "application/json")
        self.assertEqual(self.ask("HEAD /nothing").status, 404)
        self.assertEqual(self.ask("HEAD /stats", Authorization="").status, 401)

    def test_missingParametersAreNamed(self) -> None:
        """For every call that needs some, in turn."""
        for call in CALLS:
            for name in call.required:
                others = "&".join(f"{other}=1" for other in call.required if other != name)
                reply = self.ask(f"{call.method} {call.path}", others)
                self.assertRefused(reply, 400, f"{name}: missing parameter")

    def test_strangeParametersAreRefused(self) -> None:
        """Repeated, unknown, empty, not UTF-8: nothing is asked of the control."""
        for query, text in {
            "identifier=a&identifier=b": "identifier: given more than once",
            "identifer=a": "unknown parameter; this call takes identifier",
            "identifier=": "identifier: empty",
            "identifier=%ff": "not UTF-8",
            "identifier=50%off": "broken percent-encoding",
        }.items():
            self.assertRefused(self.ask("POST /cache/invalidate", query), 400, text)

    def test_secondsAreAWholeNumber(self) -> None:
        """0 to 120, in ASCII digits, and nothing else."""
        for seconds in ("121", str(2**64), "-1", "1.5", "x", "%D9%A3", "+1", "1e1", "30s"):
            reply = self.ask("POST /connections/delay", f"identifier=a&seconds={seconds}")
            self.assertRefused(reply, 400, "seconds: must be a whole number from 0 to 120")

    def test_parametersInABodyAreNone(self) -> None:
        """Only those of the query count."""
        answer = self.treq.post(
            "https://proxy/connections/kick",
            data={"identifier": "ann"},
            headers={"Authorization": BEARER},
        )
        self.assertEqual(self.successResultOf(answer).code, 400)
        self.assertEqual(self.control.asked, [])

    def test_answersAreNotKept(self) -> None:
        """By no cache, since they tell of accounts; and the server's version is in none."""
        for reply in (self.ask("GET /healthz"), self.ask("GET /x"), self.ask("GET /x", **WRONG)):
            self.assertEqual(reply.headers["cache-control"], "no-store")
            self.assertEqual(reply.headers["server"], "mailproxy")


WRONG = {"Authorization": "Bearer wrong"}


class TokenTests(APICase):
    """Who is heard."""

    def test_healthzNeedsNoToken(self) -> None:
        """It says `ok` to everybody, with a wrong token too, and whatever is asked along."""
        for fields in ({"Authorization": ""}, WRONG, {}):
            for path in ("/healthz", "/healthz/"):
                reply = self.ask(f"GET {path}", "probe=1&probe=%ff", **fields)
                self.assertEqual((reply.status, reply.text), (200, "ok\n"))

    def test_healthzIsHeardByWhoIsLockedOut(self) -> None:
        """A wrong token for it is no guess, and a lock does not make us look dead."""
        for _ in range(5):
            self.ask("GET /healthz", **WRONG)
        self.assertEqual(self.ask("GET /nothing").status, 404)
        for _ in range(5):
            self.ask("GET /stats", **WRONG)
        self.assertEqual(self.ask("GET /healthz", **WRONG).status, 200)
        self.assertEqual(self.ask("GET /stats").status, 429)

    def test_theTokenComesFirst(self) -> None:
        """Without it every path, method and parameter looks the same."""
        calls = [f"{call.method} {call.path}" for call in CALLS if call.needsToken]
        seen = set()
        for call in (*calls, "GET /x", "FOO /stats", "get /stats", "PUT /%ff", "GET /*"):
            reply = self.ask(call, "seconds=x&identifier=%ff", Authorization="")
            self.assertRefused(reply, 401, "a valid token is needed")
            seen.add(frozenset({**reply.headers, "date": ""}.items()))
            self.assertEqual(reply.headers["www-authenticate"], "Bearer")
        self.assertEqual(len(seen), 1)

    def test_otherSpellingsOfHealthzNeedAToken(self) -> None:
        """What is open is compared as it came, so that no spelling opens another path."""
        for path in (
            "/%68ealthz",
            "/healthz%2f",
            "/healthz//",
            "/healthz/../stats",
            "//healthz",
            "/healthz;x",
        ):
            self.assertRefused(self.ask(f"GET {path}", Authorization=""), 401, "token")

    def test_strangeTokensAreRefused(self) -> None:
        """One letter, another scheme, nothing behind the scheme."""
        for value in ("B", "Basic Y29ycmVjdDpob3JzZQ==", "Bearer", TOKEN, f"Bearer {TOKEN}x"):
            self.api = ManagementAPI(self.control, Guard(TOKEN, 3, 60.0, Clock()))
            self.treq = StubTreq(self.api.resource())
            self.assertRefused(self.ask("GET /stats", Authorization=value), 401, "token")

    def test_guessersAreLockedOut(self) -> None:
        """From the threshold on nothing but the wait is told, the right token or not."""
        for _ in range(3):
            self.assertRefused(self.ask("GET /stats", **WRONG), 401, "token")
        for fields in (WRONG, {}, {"Authorization": ""}):
            reply = self.ask("GET /stats", **fields)
            self.assertRefused(reply, 429, "too many wrong tokens")
            self.assertEqual(reply.headers["retry-after"], "60")
