"""Weights of ours and of others: names, files, loading, export."""
