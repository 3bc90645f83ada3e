"""Self-supervised learning of music from raw audio."""
