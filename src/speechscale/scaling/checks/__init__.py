"""Named warnings about a table or a fit."""
