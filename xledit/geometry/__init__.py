"""The geometry of edits: tensors in, numbers out, each figure beside its null."""
