"""The ways to fail: what each one tells whom."""

import inspect

from twisted.trial.unittest import SynchronousTestCase

from mailproxy import errors
from mailproxy.errors import (
    BackendFailed,
    CircuitOpen,
    ConfigError,
    LimitExceeded,
    MailProxyError,
    ProtocolError,
    Stage,
)


class ErrorTests(SynchronousTestCase):
    """One base; children where the caller reacts differently."""

    def test_theyHaveOneBase(self) -> None:
        """Whoever catches MailProxyError catches all that is raised on purpose."""
        for name, each in inspect.getmembers(errors, inspect.isclass):
            if issubclass(each, BaseException):
                self.assertTrue(issubclass(each, MailProxyError), name)

    def test_tooMuchIsAgainstTheRules(self) -> None:
        """A peer that sends too much breaks its protocol."""
        self.assertTrue(issubclass(LimitExceeded, ProtocolError))

    def test_aBackendsFailureTellsHowFarItCame(self) -> None:
        """In words for the log; and it is not tried again unless somebody says so."""
        failed = BackendFailed(Stage.TLS, "certificate has expired")
        self.assertEqual(str(failed), "tls: certificate has expired")
        self.assertIs(failed.stage, Stage.TLS)
        self.assertFalse(failed.retry)
        self.assertTrue(BackendFailed(Stage.CONNECT, "refused", retry=True).retry)

    def test_anOpenCircuitTellsWhenToComeBack(self) -> None:
        """It is a backend's failure that is not tried again."""
        failed = CircuitOpen("new", 12.5)
        self.assertEqual(str(failed), "circuit open: new is down")
        self.assertEqual((failed.stage, failed.retry), (Stage.BREAKER, False))
        self.assertEqual(failed.retryAfter, 12.5)

    def test_someStagesNeedNoSecondWitness(self) -> None:
        """What fails before the host answers, the overall timeout included, is the host's fault."""
        unreached = {stage for stage in Stage if not stage.reachesHost}
        self.assertEqual(unreached, {Stage.RESOLVE, Stage.CONNECT, Stage.TIMEOUT})

    def test_everyProblemOfAConfigurationIsTold(self) -> None:
        """One per line, in their order."""
        failed = ConfigError(["server.threads: too many", "admin: missing"])
        self.assertEqual(str(failed).splitlines(), list(failed.problems))
        self.assertEqual(failed.problems, ("server.threads: too many", "admin: missing"))
