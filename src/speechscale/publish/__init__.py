"""Bundles that travel: facts from records, cards, checksums, a push to a hub."""
