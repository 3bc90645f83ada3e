"""Records of results, and the figures and tables made from them."""
