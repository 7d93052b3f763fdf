"""Looking inside: layers of a model, units of speech."""
