"""How often to commit, measured."""
