"""Longtail bench: the harness that compares methods for long-tailed detection fairly."""
