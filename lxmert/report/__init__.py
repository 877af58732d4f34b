"""The page that a run leaves, and the curves on it."""
