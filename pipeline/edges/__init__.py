"""One vendor each; imported where a run is built and wired, and by commands."""
