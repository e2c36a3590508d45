"""Data sets: glyphs, LVIS and COCO readers, checks, loading and augmentation."""
