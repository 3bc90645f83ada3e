"""Configurations, training loops and checkpoints."""
