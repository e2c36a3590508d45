"""The torchvision engine: its modules behind the seam of bench.detection.contract."""

from bench.engines.torchvision.detector import TwoStageDetector, build, head_widths
from bench.engines.torchvision.weights import read_file as read_weights

__all__ = ["TwoStageDetector", "build", "head_widths", "read_weights"]
