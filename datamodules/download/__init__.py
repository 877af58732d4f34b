"""Fetching and unpacking the release's and the makers' files."""
