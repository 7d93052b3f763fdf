"""lm-evaluation-harness: our tasks for it, its tasks for us."""
