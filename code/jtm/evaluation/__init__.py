"""Evaluation of features: tasks, baselines and metrics."""
