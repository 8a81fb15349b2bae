"""The editing pipeline, a script a stage: dvc.yaml."""
