"""What every stage shares: how it starts, logs, fails and loads the model of the run."""
