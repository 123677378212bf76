"""The files for operators: examples that load, a dashboard that shows what exists, sound units."""

import json
import re
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailproxy.config import warnings
from mailproxy.config.bind import parseBind
from mailproxy.metrics import Metrics
from mailproxy.workers.control import ownCounts
from tests.config.support import MAIN, TOKEN, ConfigTestCase
from tests.test_metrics import eventfulMetrics, samples

ETC = Path(__file__).parents[1] / "etc"


class ExampleTests(ConfigTestCase):
    """`etc/examples`."""

    def test_eachIsSound(self) -> None:
        """With the files that it names in place it loads, and there is nothing to warn of."""
        self.write("mail.example.com.pem", MAIN.leaf)
        self.write("mail.example.com.key", MAIN.key)
        self.write("token", TOKEN)
        self.write("mapping", "")
        examples = sorted((ETC / "examples").glob("*.toml"))
        self.assertGreaterEqual(len(examples), 3)
        for example in examples:
            text = re.sub("/(etc|var/lib)/mailproxy/", "", example.read_text())
            self.assertNotIn('"/', text.split("[[http.route]]")[0], example.name)
            config = self.load(text)
            self.assertEqual(warnings(config), [], example.name)
            self.assertIsNotNone(config.admin)


class DashboardTests(SynchronousTestCase):
    """`etc/grafana/mailproxy.json`."""

    def setUp(self) -> None:
        """Read it."""
        self.text = (ETC / "grafana" / "mailproxy.json").read_text()
        self.dashboard: dict[str, Any] = json.loads(self.text)

    def counted(self) -> dict[str, set[str]]:
        """Each sample's name with its labels, when everything has happened once."""
        own = [(each[0], each[1]) for f in ownCounts(1, 0).values() for each in f["samples"]]
        found = {
            name: {label for label, _ in labels} for name, labels in samples(eventfulMetrics())
        }
        return found | {name: set(labels) for name, labels in own}

    def test_onlyWhatExistsIsShown(self) -> None:
        """Every metric that is asked for is one of ours, with the labels that it is asked by."""
        counted = self.counted()
        ours = {"job", "instance"}  # added by the Prometheus server
        for panel in self.dashboard["panels"]:
            for target in panel["targets"]:
                asked = re.findall(r"\b(mailproxy_\w+)(?:\{([^}]*)\})?", target["expr"])
                self.assertTrue(asked, target)
                labels = set(re.findall(r"(\w+)=", target["expr"]))
                labels |= set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                for group in re.findall(r"by \(([^)]*)\)", target["expr"]):
                    labels |= set(group.replace(" ", "").split(","))
                for name, _ in asked:
                    self.assertIn(name, counted)
                    self.assertEqual(labels - counted[name] - ours, set(), target)

    def test_everyMetricIsShown(self) -> None:
        """What is counted has its place; a histogram's parts are one thing."""
        shown = set(re.findall(r"\bmailproxy_\w+", self.text))
        bare = {re.sub("_(bucket|count|sum|created)$", "", name) for name in self.counted()}
        bare = {name for name in bare if f"{name}_total" not in self.counted()}
        self.assertEqual({name for name in bare if not any(name in each for each in shown)}, set())

    def test_queryVariables(self) -> None:
        """The variables ask for a metric that is always there."""
        for variable in self.dashboard["templating"]["list"]:
            for name in re.findall(r"\bmailproxy_\w+", variable["query"]):
                self.assertIn(name, {found for found, _ in samples(Metrics())})

    def test_panelsHaveNamesAndNumbers(self) -> None:
        """No two are the same."""
        for key in ("id", "title"):
            values = [panel[key] for panel in self.dashboard["panels"]]
            self.assertEqual(len(values), len(set(values)))


class UnitTests(SynchronousTestCase):
    """`etc/mailproxy.service` and `.socket`."""

    def read(self, name: str) -> dict[str, list[str]]:
        """Every key of a unit with its values."""
        found: dict[str, list[str]] = {}
        for line in (ETC / name).read_text().splitlines():
            if re.match("[A-Z]", line):
                key, _, value = line.partition("=")
                found.setdefault(key, []).append(value)
        return found

    def test_stopOutlastsTheDrain(self) -> None:
        """systemd waits longer than sessions are given by default."""
        (limit,) = self.read("mailproxy.service")["TimeoutStopSec"]
        self.assertGreater(int(limit), 30)

    def test_startsAsTheManualSays(self) -> None:
        """In the foreground, without a pid file, telling when it is ready."""
        unit = self.read("mailproxy.service")
        self.assertEqual(unit["Type"], ["notify"])
        (command,) = unit["ExecStart"]
        for word in ("--nodaemon", "--pidfile= ", " mailproxy --config "):
            self.assertIn(word, command)

    def test_reloadIsTheSignalThatWeObey(self) -> None:
        """`systemctl reload` sends SIGHUP to the proxy itself."""
        (command,) = self.read("mailproxy.service")["ExecReload"]
        self.assertRegex(command, r"\A/\S+/kill -HUP \$MAINPID\Z")

    def test_socketsAndListenersCorrespond(self) -> None:
        """The endpoint strings in the socket unit's comment are those of its sockets, in order."""
        text = (ETC / "mailproxy.socket").read_text()
        binds = re.findall(r'"(systemd:domain=(INET6?):index=(\d+))"', text)
        sockets = self.read("mailproxy.socket")["ListenStream"]
        self.assertEqual([int(index) for _, _, index in binds], list(range(len(sockets))))
        for (bind, domain, _), address in zip(binds, sockets, strict=True):
            parseBind(bind)
            self.assertEqual(domain == "INET6", address.startswith("["))


class JailTests(SynchronousTestCase):
    """`etc/fail2ban`: its form; `tests/integration` runs the filter itself."""

    def test_jailNamesItsFilter(self) -> None:
        """The jail's filter is the file beside it, and reads the unit's own output."""
        jail, filter_ = RawConfigParser(), RawConfigParser()
        jail.read(ETC / "fail2ban" / "jail.d" / "mailproxy.conf")
        name = jail["mailproxy"]["filter"]
        filter_.read(ETC / "fail2ban" / "filter.d" / f"{name}.conf")
        self.assertIn("mailproxy.service", filter_["Definition"]["journalmatch"])
