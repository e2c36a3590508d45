"""The torchvision engine behind the seam of bench.detection.contract. Imports nothing: planning reads facts.py only."""
