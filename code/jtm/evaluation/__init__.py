"""What features are worth: tasks, baselines, metrics."""
