"""Decoding: a model continues token ids. See `generate`; docs/generating.md."""
