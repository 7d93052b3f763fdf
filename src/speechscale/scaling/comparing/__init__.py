"""Two arms or tables against each other."""
