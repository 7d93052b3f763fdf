"""Runs of our own studies: parts, arms, multipliers, transfer, verdict."""
