"""Where images come from: folders, tables and LFW trees, listed as records."""
