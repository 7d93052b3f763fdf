"""Plans for a budget, and power before it is spent."""
