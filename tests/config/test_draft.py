"""The sound parts of a broken configuration."""

import tomllib

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config.draft import Draft, Lead, draft
from tests.config.support import MINIMAL, changed


def drafted(text: str) -> Draft:
    """The draft of a file of this text."""
    return draft(tomllib.loads(text), {})


class DraftTests(SynchronousTestCase):
    """What is kept and what is left out."""

    def test_soundFileIsKeptWhole(self) -> None:
        """Every table is there."""
        parts = drafted(MINIMAL)
        self.assertEqual(parts.served, {"imap"})
        self.assertEqual(parts.declared, {"old"})
        assert parts.default is not None
        self.assertEqual(parts.default.host, "old.example.com")
        self.assertIsNotNone(parts.mapping)
        self.assertIsNone(parts.admin)

    def test_brokenTableIsLeftOutButDeclared(self) -> None:
        """So that nobody is told that it is not declared."""
        parts = drafted(changed(('host = "old.example.com"', "host = 1")))
        self.assertEqual(parts.declared, {"old"})
        self.assertEqual(parts.destinations, {})
        self.assertIsNone(parts.default)
        self.assertEqual(parts.served, {"imap"})

    def test_brokenNeighboursDoNoHarm(self) -> None:
        """Of two listeners the sound one stays."""
        parts = drafted(changed(extra="[listener.bad]\nprotocol = 'imap'\n"))
        self.assertEqual(list(parts.listeners), ["imaps"])
        self.assertTrue(parts.hasListeners)

    def test_nonsenseIsAnEmptyDraft(self) -> None:
        """Whatever stands in place of a table."""
        parts = drafted("listener = 1\ndestination = []\ntls = ''\nrouting = 2\nhttp = 3\n")
        self.assertEqual((parts.listeners, parts.declared), ({}, frozenset()))
        self.assertIsNone(parts.routing or parts.mapping or parts.default)
        self.assertEqual(parts.leads, {})

    def test_routesLeadSomewhereWhateverElseIsWrong(self) -> None:
        """Each by itself; what cannot be a destination's name is none."""
        parts = drafted(
            "[http]\nroute = [{match = 1, destination = 'old'}, 2, "
            "{extract = 3, fallback = 'new'}, {destination = 'a b', fallback = []}]\n"
        )
        self.assertTrue(parts.hasRoutes)
        self.assertEqual(
            parts.leads,
            {
                0: Lead("old", None, frozenset({"match", "destination"})),
                2: Lead(None, "new", frozenset({"extract", "fallback"})),
                3: Lead(None, None, frozenset({"destination", "fallback"})),
            },
        )

    def test_thereAreNoRoutes(self) -> None:
        """Only where that is certain."""
        for text in ("", "[http]\n", "[http]\nroute = []\n"):
            self.assertFalse(drafted(text).hasRoutes, text)
        for text in ("http = 3\n", "[http]\nroute = 3\n", "[http.route]\n"):
            self.assertTrue(drafted(text).hasRoutes, text)
