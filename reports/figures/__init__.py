"""Figures: one module for each kind. `kinds.py` has the table of kinds and draws those that a suite names; `scene.py`
is what each is drawn from, `canvas.py` what all are drawn on.
"""
