"""Measurements: what the harness costs, against what it replaces. Separate from tests, which never judge a time."""
