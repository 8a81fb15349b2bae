"""Train a multilingual model from scratch."""
