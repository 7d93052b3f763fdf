"""Readers of published benchmarks: from their files to `RawItem`s, one module per family of layouts.

Enters: files as their authors distribute them. Leaves: items whose texts and recordings are named, and a `SkipLog` of
what has no partner or no file. The one decision worth knowing: a reader never guesses which candidate is right; where
names or columns do not say so, it refuses.
"""
