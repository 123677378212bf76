"""Why an account goes where it goes, step by step."""

import json
from typing import Any

from mailproxy.errors import InvalidIdentifier, NotDone
from tests.cli.support import ProxyCase

ANN = "ann@example.org"


class ExplainTests(ProxyCase):
    """`mailproxy explain ID`."""

    def explain(self, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return the exit status and the steps by name."""
        status = self.run_("explain", *words, "--json")
        told = json.loads(self.printed()[0])
        self.assertEqual(told["served"], status == 0)
        return status, {step["step"]: step for step in told["steps"]}

    def test_theStepsLeadFromTheNameToTheServer(self) -> None:
        """Each says what came of it and where it comes from."""
        self.world.table[ANN] = "new"
        self.world.begin(ANN, "new")
        status, steps = self.explain(ANN.upper(), "--protocol", "imap")
        self.assertEqual(status, 0)
        names = ["identifier", "mapping", "destination", "server", "health", "sessions"]
        self.assertEqual(list(steps), names)
        self.assertEqual(steps["identifier"]["result"], ANN)
        self.assertIn("normalize", steps["identifier"]["from"])
        self.assertEqual(steps["mapping"]["result"], "mapped")
        self.assertEqual(steps["mapping"]["from"], "the file store, asked just now")
        self.assertEqual(steps["destination"]["result"], "new")
        self.assertEqual(steps["server"]["result"], "new.test:993, TLS implicit")
        self.assertEqual(steps["server"]["from"], "[destination.new.protocol.imap]")

    def test_theDefaultIsSaid(self) -> None:
        """An account without a mapping goes where the configuration says."""
        _, steps = self.explain(ANN)
        self.assertEqual(steps["identifier"]["from"], "as given")
        self.assertEqual(steps["mapping"]["result"], "not mapped")
        self.assertEqual(steps["destination"]["from"], "[routing] default_destination")

    def test_aMissingProtocolEndsTheWay(self) -> None:
        """The destination would have to declare it; the status says that no login gets there."""
        status, steps = self.explain(ANN, "--protocol", "pop3")
        self.assertEqual((status, steps["server"]["ok"]), (1, False))
        self.assertEqual(steps["server"]["result"], "no pop3, only imap")

    def test_aDestinationThatIsDownEndsTheWay(self) -> None:
        """Its failures are told."""
        facts = self.world._destinations()
        facts[0].update(down=True, consecutive_failures=5)
        self.world._destinations = lambda: facts  # type: ignore[method-assign]
        status, steps = self.explain(ANN)
        self.assertEqual((status, steps["health"]["ok"]), (1, False))
        self.assertEqual(steps["health"]["result"], "down, 5 failures in a row")

    def test_sessionsElsewhereAreCounted(self) -> None:
        """They are why somebody still sees the old mailbox."""
        self.world.begin("ann", "new")
        self.world.begin("ann", "old")
        _, steps = self.explain("ann")
        self.assertEqual(steps["sessions"]["result"], "1 there, 1 still elsewhere")

    def test_aTableIsDrawn(self) -> None:
        """And a last line that says it all."""
        self.assertEqual(self.run_("explain", ANN), 0)
        heading, *_, last = self.printed()
        self.assertEqual(heading, "step\tresult\tfrom")
        self.assertEqual(last, f"The next login of {ANN} goes to old.")

    def test_aProxyThatTellsLessIsUnderstood(self) -> None:
        """The keys that the API is not bound to have may be missing."""
        whole = self.world._mapping(ANN)
        less = {key: whole[key] for key in ("identifier", "normalized", "destination")}
        facts = {**less, "routed_to_default": True, "cached": True}
        self.world._mapping = lambda identifier: facts  # type: ignore[method-assign]
        status, steps = self.explain(ANN, "--protocol", "imap")
        self.assertEqual(status, 0)
        self.assertNotIn("server", steps)
        self.assertEqual(steps["mapping"]["from"], "the mapping store, remembered")

    def test_aNameThatCannotBeIsRefused(self) -> None:
        """In the proxy's words."""
        self.world.failures["mapping"] = [InvalidIdentifier("empty")]
        job = self.job("explain", "%")
        failure = self.failureResultOf(self.begin(job.arguments.run(job)), NotDone)
        self.assertEqual(str(failure.value), "identifier: empty")
