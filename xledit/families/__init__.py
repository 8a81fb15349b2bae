"""Which family a model is of: the table of known ones, and probing for all others."""
