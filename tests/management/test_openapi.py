"""The description of the API says what the API does."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailproxy.management.api import CALLS
from mailproxy.management.openapi import document
from tests.management.test_api import DONE, FAILED
from tests.test_control import ControlCase
from tests.test_registry import FakeSession

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def misfits(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """Where a value is not what a schema says; a key that the schema lacks is one such place."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(isinstance(value, _TYPES[kind]) for kind in kinds):
        return [f"{where or '/'} is no {schema['type']}"]
    found: list[str] = []
    if isinstance(value, dict) and "properties" in schema:
        wanted = schema["properties"]
        found += [f"{where}/{key}" for key in value.keys() ^ wanted.keys()]
        for key in value.keys() & wanted.keys():
            found += misfits(value[key], wanted[key], f"{where}/{key}")
    if isinstance(value, list):
        for item in value:
            found += misfits(item, schema["items"], f"{where}/*")
    return found


class DocumentTests(SynchronousTestCase):
    """The document as a whole."""

    def setUp(self) -> None:
        """Make it."""
        self.document = document(CALLS)

    def operation(self, call: str) -> dict[str, Any]:
        """What is said of `METHOD /path`."""
        method, path = call.split(" ")
        found: dict[str, Any] = self.document["paths"][path][method.lower()]
        return found

    def test_callsAndOperationsAreTheSame(self) -> None:
        """None is missing, none is made up."""
        said = [
            (method.upper(), path)
            for path, operations in self.document["paths"].items()
            for method in operations
        ]
        self.assertEqual(sorted(said), sorted((call.method, call.path) for call in CALLS))

    def test_parameters(self) -> None:
        """Those that a call takes, and whether it needs them."""
        for call in CALLS:
            said = self.operation(f"{call.method} {call.path}")["parameters"]
            self.assertEqual(
                [(each["name"], each["required"]) for each in said],
                [(name, True) for name in call.required]
                + [(name, False) for name in call.optional],
            )

    def test_eachSaysWhatItIsFor(self) -> None:
        """In one short sentence, and under a name of its own."""
        names = set()
        for call in CALLS:
            said = self.operation(f"{call.method} {call.path}")
            self.assertRegex(said["summary"], r"\A[A-Z].{5,70}[.]\Z")
            names.add(said["operationId"])
        self.assertEqual(len(names), len(CALLS))

    def test_theTokenIsAskedForWhereItIsNeeded(self) -> None:
        """Everywhere, unless an operation says that it is not."""
        self.assertEqual(self.document["security"], [{"token": []}])
        for call in CALLS:
            said = self.operation(f"{call.method} {call.path}")
            self.assertEqual("security" not in said, call.needsToken)
            for status in ("401", "429"):
                self.assertEqual(status in said["responses"], call.needsToken)

    def test_everyFailureIsSaid(self) -> None:
        """Each status that a call answers with in the API's own tests."""
        for call, _, _, status, _ in FAILED:
            self.assertIn(str(status), self.operation(call)["responses"], call)

    def test_kindsOfAnswersAreSaid(self) -> None:
        """Text or JSON, as the calls answer in the API's own tests."""
        for call, *_, expected in DONE:
            kinds = list(self.operation(call)["responses"]["200"]["content"])
            kind = "text/plain" if isinstance(expected, str) else "application/json"
            self.assertEqual(kinds, [kind], call)


class ShapeTests(ControlCase):
    """What a real control answers has the described shape: no key more, none less."""

    def schema(self, path: str) -> dict[str, Any]:
        """What is said of a GET's answer."""
        answer = document(CALLS)["paths"][path]["get"]["responses"]["200"]
        found: dict[str, Any] = answer["content"]["application/json"]["schema"]
        return found

    def test_answersFit(self) -> None:
        """With a session that is routed and one that is not."""
        for name, place in (("s1", ("ann@example.org", "new")), ("s2", (None, None))):
            session = FakeSession(name, self.proxy.registry)
            self.proxy.registry.add(session)
            self.proxy.registry.routed(session, *place)
        control = self.control
        answers: tuple[tuple[str, Deferred[Any]], ...] = (
            ("/stats", control.stats()),
            ("/destinations", control.destinations()),
            ("/mappings", control.mapping("ann@example.org")),
            ("/connections", control.connections(None, None, None)),
        )
        for path, answer in answers:
            found = self.successResultOf(answer)
            self.assertTrue(found)
            self.assertEqual(misfits(found, self.schema(path)), [], path)

    def test_misfitsAreFound(self) -> None:
        """Or the test above shows nothing."""
        schema = self.schema("/destinations")
        good = self.successResultOf(self.control.destinations())
        self.assertTrue(misfits([{**good[0], "more": 1}], schema))
        self.assertTrue(misfits([{**good[0], "down": "no"}], schema))
        self.assertTrue(misfits([{}], schema))
        self.assertTrue(misfits({}, schema))
