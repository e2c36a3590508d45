"""Deformable DETR, a network of our own."""
