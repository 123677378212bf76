"""Tests of the mapping sources and their cache."""
