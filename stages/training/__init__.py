"""The training pipeline, a script a stage: tranyu/dvc.yaml."""
