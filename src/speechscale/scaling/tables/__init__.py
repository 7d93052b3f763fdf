"""Any table of runs, read and checked."""
