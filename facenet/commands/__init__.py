"""The commands: one module each, which Hydra calls with composed options."""
