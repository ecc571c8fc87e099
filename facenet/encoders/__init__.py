"""Encoders: networks with their preprocessing, on disk and in use."""
