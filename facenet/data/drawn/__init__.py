"""Drawn people: the embedded default data."""
