"""What holds for a login in every protocol, told once: each protocol's module runs these tests."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from tests.integration.accounts import HELPDESK, ODD, at
from tests.integration.house import CLOSED, SOMEBODY, WRONG, LoginTestCase, withPassword
from tests.integration.wire import plain


class LoginContract(LoginTestCase):
    """The tests; what a protocol says is in its `dialogue`."""

    # Where a login goes

    def test_everyModeOfTLSOnBothLegs(self) -> None:
        """Implicit TLS and STARTTLS before the proxy; these and no TLS behind it."""
        for name, front in product((*self.one, *self.others), ("secure", "upgrading")):
            server = "legacy" if name in self.one else name
            mark = self.servers[server].log.mark()
            client = self.enter(at(name), front)
            words = self.loginOn(server, at(name), mark)
            self.assertEqual(words["rip"], "127.0.0.1")
            client.close()

    def test_theBackendIsToldWhoTheClientIs(self) -> None:
        """By a PROXY header or by XCLIENT: address and port, and which ones they connected to."""
        for name, front in product(("header", "told"), ("secure", "upgrading")):
            mark = self.servers["legacy"].log.mark()
            client = self.enter(at(name), front, source=SOMEBODY)
            words = self.loginOn("legacy", at(name), mark)
            self.assertEqual((words["rip"], int(words["rport"])), client.socket.getsockname())
            self.assertEqual(words["real_rip"], "127.0.0.1")
            if name == "told":
                self.assertEqual(words["session"], self.sessionOf(client)["id"])
            client.close()

    def test_aMasterUserIsRoutedByTheMailboxsName(self) -> None:
        """By separator and by authorization identity."""
        mailbox = at("upgraded").name
        for sent in (
            plain(f"{mailbox}*{HELPDESK.name}", HELPDESK.password),
            plain(HELPDESK.name, HELPDESK.password, authzid=mailbox),
        ):
            mark = self.proxy.log.mark()
            answer = self.dialogue.authenticate(self.greeted(), "PLAIN", sent)
            self.assertRegex(answer, self.dialogue.accepted)
            self.proxy.log.waitForLine("goes to upgraded", since=mark)

    # Mechanisms

    def test_everyMechanism(self) -> None:
        """With an initial response and without; LOGIN is replayed where there is no PLAIN."""
        names = [("legacy", each) for each in self.mechanisms]
        names += [(name, each) for name in self.others for each in ("PLAIN", "LOGIN")]
        for name, mechanism in names:
            sent = self.messages(mechanism, at(name))
            answer = self.answer(self.greeted(), mechanism, sent)
            self.assertRegex(answer, self.dialogue.accepted, (name, mechanism))
            client = self.greeted()
            answer = self.dialogue.authenticate(client, mechanism.lower(), sent[0])
            for message in sent[1:]:
                answer = self.dialogue.reply(client, message)
            self.assertRegex(answer, self.dialogue.accepted, (name, mechanism))

    def test_oddPasswordsArriveAsTheyAre(self) -> None:
        """Spaces, quotes, backslashes, UTF-8 and other bytes."""
        for name, odd in product(("legacy", *self.others), ODD):
            self.enter(at(name, odd)).close()

    def test_aMechanismThatIsNotOfferedIsRefused(self) -> None:
        """And counted: the third ends the connection."""
        client = self.greeted()
        for _ in range(3):
            answer = self.dialogue.authenticate(client, "CRAM-MD5")
            self.assertRegex(answer, self.dialogue.unknown)
        client.readToEnd()

    def test_cleartextLoginsNeedTLS(self) -> None:
        """Before STARTTLS no secret is taken, whatever the mechanism."""
        for mechanism in self.mechanisms:
            client = self.connect("upgrading")
            self.dialogue.greet(client)
            mark = self.proxy.log.mark()
            [first, *_] = self.messages(mechanism, at("legacy"))
            answer = self.dialogue.authenticate(client, mechanism, first)
            self.assertRegex(answer, self.dialogue.private)
            self.assertNotIn("goes to", self.proxy.log.text(mark))

    # Refusals

    def test_theBackendsWordsArriveUnlessTheyAreHidden(self) -> None:
        """Why a closed account is refused is the backend's to say, or nobody's."""
        for name in ("legacy", "upgraded", "hidden"):
            answer = self.dialogue.logIn(self.greeted(), at(name, CLOSED))
            self.assertRegex(answer, self.dialogue.refused)
            self.assertEqual(CLOSED.closed.encode() in answer, name != "hidden", answer)
            if name == "hidden":
                self.assertEqual(answer, self.dialogue.hidden)

    def test_aRefusedLoginCanBeMended(self) -> None:
        """After a refusal the same connection takes a good login, to another backend even."""
        for first, second in (("legacy", "legacy"), ("open", "upgraded"), ("hidden", "told")):
            for front in ("secure", "upgrading"):
                client = self.greeted(front)
                answer = self.dialogue.logIn(client, withPassword(at(first), WRONG))
                self.assertRegex(answer, self.dialogue.refused)
                self.dialogue.idle(client)
                answer = self.dialogue.logIn(client, at(second))
                self.assertRegex(answer, self.dialogue.accepted, (first, second))

    def test_tooManyRefusalsEndTheConnection(self) -> None:
        """The third is answered as the others were, and is the last."""
        client = self.greeted()
        for _ in range(3):
            answer = self.dialogue.logIn(client, withPassword(at("legacy"), WRONG))
            self.assertRegex(answer, self.dialogue.refused)
        self.assertNotIn(b"OK", client.readToEnd())

    def test_whyATokenIsRefusedReachesTheClient(self) -> None:
        """The backend's reason is passed on, the client's answer back, and then its refusal."""
        for name, mechanism in product(("legacy", "upgraded"), ("XOAUTH2", "OAUTHBEARER")):
            client = self.greeted()
            [sent] = self.messages(mechanism, at(name), lifetime=-60)
            reason = self.dialogue.challenge(self.dialogue.authenticate(client, mechanism, sent))
            self.assertIn(json.loads(reason or b"")["status"], ("401", "invalid_token"))
            answer = self.dialogue.reply(client, b"\1" if mechanism == "OAUTHBEARER" else b"")
            self.assertRegex(answer, self.dialogue.refused)
            self.assertRegex(self.dialogue.logIn(client, at(name)), self.dialogue.accepted)

    def test_whyATokenIsRefusedCanBeHidden(self) -> None:
        """The client gets one answer, in our words, and no reason."""
        for mechanism in ("XOAUTH2", "OAUTHBEARER"):
            client = self.greeted()
            [sent] = self.messages(mechanism, at("hidden"), lifetime=-60)
            answer = self.dialogue.authenticate(client, mechanism, sent)
            self.assertEqual(answer, self.dialogue.hidden)
            self.assertRegex(self.dialogue.logIn(client, at("hidden")), self.dialogue.accepted)

    # What is nobody's fault

    def test_aBackendThatAsksToTryLaterIsNoRefusal(self) -> None:
        """Its temporary answer stays one, hidden or not."""
        for name in ("broken", "brokenhidden"):
            answer = self.dialogue.logIn(self.greeted(), at(name))
            self.assertRegex(answer, self.dialogue.temporary, name)

    def test_aBackendThatIsAwayIsNoRefusal(self) -> None:
        """The client is told to try later, and is closed."""
        client = self.greeted()
        answer = self.dialogue.logIn(client, at("away"))
        self.assertRegex(answer, self.dialogue.unavailable)
        client.readToEnd()

    def test_aBackendThatStopsIsNoRefusal(self) -> None:
        """It was there a moment ago; when it is back, so are its accounts."""
        server = self.servers["open"]
        self.enter(at("open")).close()
        server.stop()
        try:
            answer = self.dialogue.logIn(self.greeted(), at("open"))
            self.assertRegex(answer, self.dialogue.unavailable)
        finally:
            server.start()
        self.enter(at("open"))

    # Management

    def test_aSessionCanBeKicked(self) -> None:
        """Both of an account's sessions end, another account's does not."""
        self.assertNobodyIsThere()
        sessions = [self.enter(at("legacy"), front) for front in ("secure", "upgrading")]
        other = self.enter(at("upgraded"))
        answer = self.api("POST", "/connections/kick", identifier=at("legacy").name)
        self.assertEqual((answer.status, answer.text.strip()), (200, "kicked 2"))
        for each in sessions:
            each.readToEnd()
        [left] = self.connections()
        self.assertEqual(left["identifier"], at("upgraded").name)
        other.send(b"x")

    def test_aLoginCanBeHeld(self) -> None:
        """While an account is moved its logins wait; they go where it then lives."""
        account, query = at("legacy"), {"identifier": at("legacy").name}
        self.api("POST", "/connections/delay", seconds=60, **query)
        self.addCleanup(self.api, "PUT", "/mappings", destination="legacy", **query)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.dialogue.logIn, self.greeted(), account)
            with self.assertRaises(TimeoutError):
                answer.result(0.3)
            self.api("PUT", "/mappings", destination="open", **query)
            mark = self.servers["open"].log.mark()
            self.api("POST", "/connections/delay", seconds=0, **query)
            self.assertRegex(answer.result(60), self.dialogue.accepted)
        self.loginOn("open", account, mark)
