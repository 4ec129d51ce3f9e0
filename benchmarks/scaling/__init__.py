"""How many replicas, compared: one simulator, demand traces, and the policies of others."""
