"""What one would use instead: each peer is a small program, as its own users would write it."""
