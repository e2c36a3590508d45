"""The torchvision engine: its modules behind the seam of bench.detection.contract."""

from bench.engines.torchvision.detector import TwoStageDetector, build, head_widths

__all__ = ["TwoStageDetector", "build", "head_widths"]
