"""One file a stage kind: what a job does."""
