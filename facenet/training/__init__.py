"""Training of embedding networks."""
