"""Compatibility of two encoders: may they share a gallery?"""
