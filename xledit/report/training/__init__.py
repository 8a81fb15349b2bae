"""The page of the training pipeline: corpus, loss, recall, and what is inside."""
