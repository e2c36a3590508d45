"""Searches over settings with Optuna, which is imported in this room alone."""
