"""Records of results, and the figures and tables drawn from them."""
