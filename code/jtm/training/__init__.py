"""Configuration, the training loop and checkpoints."""
