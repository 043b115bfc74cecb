"""Gates: why a week may, or may not, start."""
