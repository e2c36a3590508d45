"""What every engine shares: the classifier seam, boxes, sampling, post-processing."""
