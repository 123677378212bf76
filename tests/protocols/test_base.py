"""What conversations exchange: which parts of it may be shown, and what counts as accepted."""

from twisted.trial.unittest import SynchronousTestCase

from mailproxy import sasl
from mailproxy.errors import Refusal
from mailproxy.protocols.base import AuthResult, Command, Dismissed, Login, Verdict

PASSWORD = b"correct horse"


class ValueTests(SynchronousTestCase):
    """Commands, logins and their results."""

    def test_commandShowsNoArguments(self) -> None:
        """A command's arguments may be a password: they stand in no text made of it."""
        command = Command(b"a", b"LOGIN", [b"ann " + PASSWORD])
        self.assertNotIn("horse", repr(command))
        self.assertIn("LOGIN", repr(command))

    def test_loginShowsNoSecret(self) -> None:
        """A login shows neither its password nor its command's arguments."""
        command = Command(b"a", b"LOGIN", [b"ann " + PASSWORD])
        self.assertNotIn("horse", repr(Login(command, sasl.fromPassword(b"ann", PASSWORD))))

    def test_onlyAnAcceptedLoginIsAccepted(self) -> None:
        """Neither a refusal nor a temporary trouble lets anybody in."""
        accepted = [each for each in Verdict if AuthResult(each, b"", b"OK").accepted]
        self.assertEqual(accepted, [Verdict.ACCEPTED])

    def test_dismissalKeepsItsReason(self) -> None:
        """Who ends a dialogue says what the client is to be told; None is nothing."""
        self.assertIs(Dismissed(Refusal.TIMEOUT).refusal, Refusal.TIMEOUT)
        self.assertIsNone(Dismissed(None).refusal)
