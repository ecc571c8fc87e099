"""The chapters of a page: each turns one run, or several, into sections."""
