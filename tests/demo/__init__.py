"""Tests of `mailproxy.demo`."""
