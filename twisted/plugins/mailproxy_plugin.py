"""Tells twistd that `twistd mailproxy` exists."""

from twisted.application.service import ServiceMaker

mailproxy = ServiceMaker("mailproxy", "mailproxy.tap", "A mail proxy", "mailproxy")
