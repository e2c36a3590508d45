"""Slurm as a place where jobs run, and as a queue that outlives its driver."""
