"""Figures: one module for each kind; `kinds.py` draws those that a suite names, `canvas.py` is what all share."""
