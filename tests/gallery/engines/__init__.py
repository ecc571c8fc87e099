"""Every engine answers as a plain model of a gallery does."""
