"""What frozen features are worth: baselines, probes, metrics."""
