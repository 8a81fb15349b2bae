"""Locate-then-edit: second moments, target values, closed forms, and putting updates into a model."""
