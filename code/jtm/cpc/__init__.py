"""The CPC study: pretraining without labels by contrastive predictive coding."""
