"""Hyperparameters: where they stand in the source, and how values are bound to them."""
