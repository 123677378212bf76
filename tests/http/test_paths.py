"""How a path stands in a log."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.http.paths import MAX_SHOWN, shown
from mailproxy.identity import redact


class ShownTests(SynchronousTestCase):
    """Readable, bounded, without names."""

    def test_plain(self) -> None:
        """As sent."""
        self.assertEqual(shown(b"/a%20b//c/", "ann"), "/a%20b//c/")
        self.assertEqual(shown(b"*", None), "*")

    def test_accountsAreRedacted(self) -> None:
        """The account, in any case and encoding, alone or not, and what looks like an address."""
        self.assertEqual(shown(b"/dav/A%6En/x", "ann"), f"/dav/{redact('Ann')}/x")
        for name in ("~ann", "ann;v=1", "Ann%boss"):
            self.assertEqual(shown(b"/x/" + name.encode(), "ann"), f"/x/{redact(name)}")
        found = shown(b"/u/bob%40example.com", None)
        self.assertNotIn("example", found)
        self.assertEqual(found, f"/u/{redact('bob@example.com')}")

    def test_longPathIsCut(self) -> None:
        """A log line is not a client's to fill."""
        self.assertEqual(len(shown(b"/" + b"a" * 5000, None)), MAX_SHOWN + 3)
