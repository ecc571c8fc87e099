"""What test files share: builders of encoders, galleries, pictures, runs, and commands as a user types them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
