"""Scoring edited models: answers, metrics and their intervals."""
