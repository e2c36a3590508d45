"""Results that travel: exports as zips that are small stores, and detections as COCO results."""
