"""Templates of video tracks."""
