"""The joint experiment: small models trained from scratch, whose checkpoints are asked which facts and which edits cross."""
