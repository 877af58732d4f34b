"""A run: built from a configuration, its folder, going on with it, opening what it has trained."""
