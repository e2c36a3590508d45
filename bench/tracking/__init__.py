"""MLflow as a mirror of the store: runs, curves, files, and its pages. Nothing reads back from it."""
