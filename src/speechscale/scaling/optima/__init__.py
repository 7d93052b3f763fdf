"""Best sizes and lowest losses of budgets, and power laws of compute."""
