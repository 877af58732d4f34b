"""One file per objective: what it reads, its head, its loss, its metrics."""
