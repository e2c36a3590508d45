"""Data as other tools export them, as a mended copy that the readers take: `data convert`. No job imports it."""
