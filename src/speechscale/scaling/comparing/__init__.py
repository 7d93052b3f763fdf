"""Two arms or tables against each other: exponents, compute multipliers, metrics, and what follows in sentences."""
