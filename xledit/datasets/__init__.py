"""Readers: one module per data set, each yielding records."""
