"""The retrieval study: audio and scores in a joint embedding space."""
