"""Tapdeck, a passive call recorder for offices with VoIP."""

__version__ = "0.1.0"
