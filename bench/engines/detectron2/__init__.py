"""The engine `detectron2`, for where that library is installed. Imports nothing: planning reads facts.py only."""
