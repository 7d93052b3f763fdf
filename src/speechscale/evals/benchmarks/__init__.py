"""Benchmarks: from original data to a folder that can be scored."""
