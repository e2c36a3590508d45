"""The torch building blocks that recipes name."""
