"""Evaluation: AP per bin, accuracy of proposals, the official cross-check."""
