"""Where a session belongs, and what becomes of that while the configuration changes."""

import attrs
from twisted.internet.defer import Deferred

from mailproxy.config.stores import OnError
from mailproxy.identity import IdentityRules
from mailproxy.routing import Router
from tests.dialling import Backend
from tests.stage import LOGIN, NEW_HOST, OLD_HOST, Client, Scene, StageCase
from tests.stage import Stage as Theatre

THIRD_HOST = "203.0.113.3"


class PlacementTests(StageCase):
    """A client that logs in, and an operator who moves its account to a new destination."""

    def enter(self, scene: Scene | None = None) -> tuple[Theatre, Client]:
        """Let a client in that has only been greeted."""
        stage = self.begin(scene)
        client = stage.enter()
        stage.network.pump()
        client.take()
        return stage, client

    def reload(self, stage: Theatre, rules: IdentityRules | None = None) -> None:
        """Take a configuration into use that has a destination more."""
        former = stage.runtime.resources
        third = attrs.evolve(former.targets["new", "imap"], destination="third", host=THIRD_HOST)
        resources = attrs.evolve(
            former,
            rules=rules or former.rules,
            router=Router(stage.cache, ("old", "new", "third"), "old", OnError.STALE),
            targets={**former.targets, ("third", "imap"): third},
        )
        stage.runtime = attrs.evolve(stage.runtime, resources=resources)

    def assertPlaced(self, stage: Theatre, client: Client, name: str, host: str) -> None:
        """The session is on file there, and that is where it is bridged."""
        (session,) = stage.registry.find(destination=name)
        self.assertEqual(stage.network.call.host, host)
        stage.answer(Backend())
        self.assertIn(b"a OK", client.take())
        self.assertEqual(session.destination, name)

    def test_aLoginGoesWhereItsAccountIs(self) -> None:
        """Looked up by the name that the rules make of it."""
        stage, client = self.enter()
        stage.source.table["ann"] = "new"
        stage.ask(client, LOGIN.replace(b"ann", b"ann%boss"))
        self.assertEqual(stage.source.asked, ["ann"])
        self.assertPlaced(stage, client, "new", NEW_HOST)

    def test_aConnectionThatHasNotLoggedInYet(self) -> None:
        """It began before the reload; its login is placed by what holds now."""
        stage, client = self.enter()
        self.reload(stage)
        stage.source.table["ann"] = "third"
        stage.ask(client, LOGIN)
        self.assertPlaced(stage, client, "third", THIRD_HOST)

    def test_aSecondLogin(self) -> None:
        """The first was refused by the old place, before the reload."""
        stage, client = self.enter()
        stage.ask(client, LOGIN)
        stage.answer(Backend(login=b"%t NO no\r\n"))
        client.take()
        self.reload(stage)
        stage.cache.invalidate()
        stage.source.table["ann"] = "third"
        stage.ask(client, LOGIN)
        self.assertPlaced(stage, client, "third", THIRD_HOST)

    def test_aLoginOnHold(self) -> None:
        """Held, the configuration changed, moved, released: it goes to the new destination."""
        stage, client = self.enter()
        stage.registry.hold("ann", 60)
        stage.ask(client, LOGIN)
        self.reload(stage)
        stage.source.table["ann"] = "third"
        stage.registry.hold("ann", 0)
        stage.network.pump()
        self.assertPlaced(stage, client, "third", THIRD_HOST)

    def test_aLookupThatTakesLong(self) -> None:
        """The answer is one that the old configuration would not understand."""
        stage, client = self.enter()
        stage.source.pending = Deferred()
        stage.ask(client, LOGIN)
        self.reload(stage)
        pending, stage.source.pending = stage.source.pending, None
        stage.source.table["ann"] = "third"
        pending.callback("third")
        stage.network.pump()
        self.assertPlaced(stage, client, "third", THIRD_HOST)

    def test_anAccountThatIsCalledOtherwiseNow(self) -> None:
        """The new rules name it: whoever waits meets a hold under the new name too."""
        stage, client = self.enter()
        stage.registry.hold("Ann", 60)
        stage.ask(client, LOGIN.replace(b"ann", b"Ann"))
        self.reload(stage, IdentityRules(lowercase=True))
        stage.registry.hold("ann", 60)
        stage.registry.hold("Ann", 0)
        stage.network.pump()
        self.assertEqual((stage.source.asked, stage.network.dialled), (["Ann"], []))
        stage.source.table["ann"] = "third"
        stage.registry.hold("ann", 0)
        stage.network.pump()
        self.assertPlaced(stage, client, "third", THIRD_HOST)

    def test_nothingHasChanged(self) -> None:
        """One look at the store is enough."""
        stage, client = self.enter()
        stage.ask(client, LOGIN)
        self.assertEqual(stage.source.asked, ["ann"])
        self.assertPlaced(stage, client, "old", OLD_HOST)
