"""Measures the gateway beside its floor and its peers; nothing here is part of the package."""
