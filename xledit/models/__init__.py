"""Language models: where their memories are, how text becomes tokens, how a forward pass is read and changed."""
