"""Ready-made jobs: models to score with, and how they are trained and judged."""
