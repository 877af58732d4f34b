"""File formats, one a file: what is in it, its checks, reading it into a store, writing it."""
