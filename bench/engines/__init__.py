"""Detector libraries behind one contract."""
