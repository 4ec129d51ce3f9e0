"""One vendor each; imported by `pipeline.wire` only."""
